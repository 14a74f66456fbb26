"""The model card: what the hub reads of a model, and what a person should know before using it."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from manyhead.export.source import Source
from manyhead.files import read_json
from manyhead.recipe.schema import EMBEDDED, Recipe, Task

HUB_METRICS = {"pearson": "pearsonr", "spearman": "spearmanr", "mcc": "matthews_correlation", "macro_f1": "f1"}
"""Names that the hub has for metrics, where they are others than ours."""

_EMBEDDED_BASE = "sentence-transformers/all-MiniLM-L6-v2"
_EMBEDDED_SAW = (
    f"The encoder is {_EMBEDDED_BASE}. Its contrastive training saw Quora questions (103,663 triplets, by its own "
    "card), so scores on pairs of Quora questions are better than they would be on questions that it never saw."
)
_HUB_DATA = "hub:"


def card_text(source: Source) -> str:
    """README.md of a hub folder: YAML front matter and Markdown."""
    from huggingface_hub import ModelCardData

    recipe, run = source.model.recipe, source.folder
    summary, state = _read(run / "summary.json"), _read(run / "state.json")
    base, embedded = base_model(recipe), recipe.encoder.checkpoint == EMBEDDED
    data = ModelCardData(
        language=source.options.get("language") or ("en" if embedded else None),
        license=source.options.get("license"),
        library_name="manyhead",
        tags=["manyhead", "multi-task", *sorted({_tag(task) for task in recipe.tasks.values()})],
        datasets=hub_datasets(recipe) or None,
        base_model=base,
        pipeline_tag="text-classification",
        model_name=recipe.name,
        eval_results=_results(recipe, summary) or None,
    )
    parts = [
        f"# {recipe.name}",
        f"{_count(recipe)} on one shared encoder, made with manyhead {metadata.version('manyhead')}.",
        "## Tasks",
        _tasks(recipe),
        "## Scores",
        *_scores(recipe, summary),
        "## Data",
        *_data(recipe, state),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(source, base)),
        "## Use",
        _use(recipe),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _count(recipe: Recipe) -> str:
    return "One task" if len(recipe.tasks) == 1 else f"{len(recipe.tasks)} tasks"


def base_model(recipe: Recipe) -> str | None:
    """The hub id of the encoder that training began with; None where it came from a folder."""
    checkpoint = recipe.encoder.checkpoint
    if checkpoint == EMBEDDED:
        return _EMBEDDED_BASE
    return None if Path(checkpoint).is_absolute() or checkpoint.startswith((".", "~")) else checkpoint


def hub_datasets(recipe: Recipe) -> list[str]:
    """Ids of the data sets that the recipe names on the hub, once each."""
    named = [
        _dataset_id(place)
        for task in recipe.tasks.values()
        for place in (task.files.train, task.files.dev, task.files.test)
        if isinstance(place, str) and place.startswith(_HUB_DATA)
    ]
    return list(dict.fromkeys(named))


def _dataset_id(place: str) -> str:
    return "/".join(place.removeprefix(_HUB_DATA).partition(":")[0].split("/")[:2])


def _read(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.is_file() else {}


def _results(recipe: Recipe, summary: Mapping[str, Any]) -> list[Any]:
    """An entry of the model-index for each task's own dev score."""
    from huggingface_hub import EvalResult

    found: list[EvalResult] = []
    for name, metric, score, facts in _own_scores(recipe, summary):
        task = recipe.tasks[name]
        dev = task.files.dev
        on_hub = isinstance(dev, str) and dev.startswith(_HUB_DATA)
        found.append(
            EvalResult(
                task_type=_tag(task),
                task_name=name,
                dataset_type=_dataset_id(dev) if on_hub and isinstance(dev, str) else "local-file",
                dataset_name=f"{name}: {_place(task, 'dev')}",
                dataset_config=name,  # results of one data set and configuration are made one entry
                dataset_split="dev",
                metric_type=HUB_METRICS.get(metric, metric),
                metric_name=f"{metric} ({_interval(facts)})",
                metric_value=round(score, 4),
            )
        )
    return found


def _own_scores(recipe: Recipe, summary: Mapping[str, Any]) -> list[tuple[str, str, float, Mapping[str, Any]]]:
    """Task, metric, score and the facts of its interval, of each task with a dev score."""
    scores = ((summary.get("dev") or {}).get("tasks")) or {}
    intervals = summary.get("intervals") or {}
    return [
        (name, task.metric, float(scores[name][task.metric]), intervals.get(name) or {})
        for name, task in recipe.tasks.items()
        if isinstance(_of(scores, name, task.metric), int | float)
    ]


def _tasks(recipe: Recipe) -> str:
    rows = [(name, _reads(task), _predicts(task)) for name, task in recipe.tasks.items()]
    return _table(("task", "reads", "predicts"), rows)


def _scores(recipe: Recipe, summary: Mapping[str, Any]) -> list[str]:
    baselines = (summary.get("baseline") or {}).get("tasks") or {}
    rows = [
        (name, metric, _number(score), _interval(facts), facts.get("n", ""), _number(_of(baselines, name, metric)))
        for name, metric, score, facts in _own_scores(recipe, summary)
    ]
    if not rows:
        return ["No scores came with the model."]
    found = [_table(("task", "metric", "dev score", "interval", "rows", "baseline"), rows)]
    found.append(
        "The baseline always says the most frequent class of the training rows, or their mean score. "
        f"The checkpoint: {summary.get('selection') or 'how it was picked is not known'}. One run, seed {recipe.seed}."
    )
    return found


def _of(scores: Mapping[str, Any], name: str, metric: str) -> object:
    return (scores.get(name) or {}).get(metric)


def _interval(facts: Mapping[str, Any]) -> str:
    low, high = facts.get("low"), facts.get("high")
    if low is None or high is None:
        return "no interval"
    return f"{facts.get('level', 0.95):.0%} interval {low:.3f} to {high:.3f}"


def _data(recipe: Recipe, state: Mapping[str, Any]) -> list[str]:
    """A row for each split that the run read: its rows, where they are from, and the sum of their texts and targets."""
    rows: list[tuple[object, ...]] = []
    for key, facts in (state.get("data") or {}).items():
        name, _, split = key.rpartition(".")
        if name in recipe.tasks:
            place = _place(recipe.tasks[name], split)
            rows.append((name, split, f"{facts.get('rows', 0):,}", place, f"`{facts.get('data', '')}`"))
    if not rows:
        return ["What it was trained on did not come with the model; its recipe.yaml names the files."]
    return [
        _table(("task", "split", "rows", "file", "sha256 of the file"), rows),
        "The data is not in this repository.",
    ]


def _limits(source: Source, base: str | None) -> list[str]:
    recipe = source.model.recipe
    lines = [f"Texts are cut behind {recipe.encoder.max_tokens} tokens; each prediction says whether its text was."]
    if recipe.encoder.checkpoint == EMBEDDED:
        lines.append(_EMBEDDED_SAW)
    elif base is not None:
        lines.append(f"What the encoder saw before is what `{base}` was trained on; see its card.")
    else:
        lines.append("What the encoder saw before this training is not known here.")
    if any(stage.pretraining is not None for stage in recipe.stages):
        lines.append("The encoder was also trained on the tasks' texts alone, without targets.")
    calibrated = sorted(source.network.temperatures)
    classes = [name for name, task in recipe.tasks.items() if task.kind == "classification"]
    if calibrated:
        lines.append(f"Probabilities were calibrated by a temperature, fitted on dev rows: {', '.join(calibrated)}.")
    if plain := [name for name in classes if name not in calibrated]:
        lines.append(f"Probabilities are not calibrated: {', '.join(plain)}.")
    lines.append("Scores are of texts like its training texts; others may be answered wrongly, and no less surely.")
    if not source.options.get("license"):
        encoder = " (the encoder's is apache-2.0)" if recipe.encoder.checkpoint == EMBEDDED else ""
        lines.append(f"No licence was named for this model{encoder}.")
    return lines


def _use(recipe: Recipe) -> str:
    calls = []
    for name, task in recipe.tasks.items():
        texts = '[("one text", "another")]' if task.is_pair else '["a text"]'
        calls.append(f'model.predict("{name}", {texts})')
    lines = ["from manyhead import Model", "", 'model = Model.load("OWNER/NAME")  # or the folder', *calls]
    return "```python\n" + "\n".join(lines) + "\n```"


def _tag(task: Task) -> str:
    if task.kind == "regression":
        return "sentence-similarity" if task.is_pair else "text-regression"
    return "text-classification"


def _reads(task: Task) -> str:
    if not task.is_pair:
        return "a text"
    return "two texts, each alone" if task.sequences_per_example == 2 else "two texts, together"


def _predicts(task: Task) -> str:
    if task.kind == "classification":
        return ", ".join(task.label_names)
    return "a score" if task.range is None else f"a score from {task.range[0]:g} to {task.range[1]:g}"


def _place(task: Task, split: str) -> str:
    """The file or hub reference of a split, without the folders of one machine."""
    place = getattr(task.files, split, None)
    if isinstance(place, str):
        return Path(place).name if Path(place).is_absolute() else place
    return "" if place is None else f"{place.fraction:.0%} of {_place(task, 'train')}"


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])
