"""What the page says of a run: scores, curves, facts and findings, arranged for reading but not laid out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manyhead.evaluation.metrics import METRICS, constant_predictions, overall
from manyhead.report.chart import Chart, Line, line_chart, trend
from manyhead.report.matrix import Matrix, class_matrix, score_matrix
from manyhead.report.read import Run, mapping, number

MAX_RECIPE_CHARACTERS = 200_000


@dataclass(frozen=True)
class Score:
    """A task's value of one metric beside the baseline's. ``gain`` is above 0 where the run is the better one."""

    metric: str
    value: float | None
    baseline: float | None
    is_primary: bool = False

    @property
    def gain(self) -> float | None:
        """How much better than the baseline."""
        if self.value is None or self.baseline is None:
            return None
        is_loss = self.metric in METRICS and not METRICS[self.metric].higher_is_better
        return self.baseline - self.value if is_loss else self.value - self.baseline


@dataclass(frozen=True)
class TaskPart:
    """What the page says of one task."""

    name: str
    n: int | None
    examples: int | None
    primary: Score
    scores: list[Score]
    charts: list[Chart]
    matrix: Matrix | None
    is_regression: bool


@dataclass(frozen=True)
class RunPart:
    """What the page says of one run."""

    name: str
    status: str
    facts: list[tuple[str, str]]
    notes: list[str]
    tasks: list[TaskPart]
    overall: list[Score]
    chart: Chart | None
    recipe: str


def run_part(run: Run) -> RunPart:
    """Arrange what was read of ``run``."""
    dev, baseline = _dev_scores(run), mapping(mapping(run.summary.get("baseline")).get("tasks"))
    primary = {task: _primary(run, task) for task in run.tasks}
    tasks = [
        _task_part(run, task, primary[task], mapping(dev.get(task)), mapping(baseline.get(task))) for task in primary
    ]
    totals = [
        Score(name, value, base)
        for name, value, base in zip(
            ("overall", "overall_raw"), _overall(dev, primary), _overall(baseline, primary), strict=True
        )
    ]
    return RunPart(
        name=_text(run.summary.get("name") or run.recipe.get("name") or run.folder.name),
        status=_text(run.summary.get("status") or run.state.get("status") or "unknown"),
        facts=_facts(run),
        notes=[*_missing(run), *run.notes, *_findings(run, tasks)],
        tasks=tasks,
        overall=totals,
        chart=_overall_chart(run),
        recipe=_recipe(run),
    )


def _dev_scores(run: Run) -> Mapping[str, Any]:
    """Task to its scores: the summary's, else those of the last evaluation, which a note then says."""
    summarised = mapping(mapping(run.summary.get("dev")).get("tasks"))
    if summarised or not run.evaluations:
        return summarised
    last = run.evaluations[-1]
    run.notes.append(f"The scores are those of the last evaluation, at step {last['step']:,}, not of a finished run.")
    return mapping(last.get("tasks"))


def _primary(run: Run, task: str) -> str:
    recipe = mapping(mapping(run.recipe.get("tasks")).get(task))
    named = mapping(run.summary.get("primary")).get(task) or recipe.get("metric")
    return str(named) if named else ("pearson" if recipe.get("kind") == "regression" else "accuracy")


def _overall(scores: Mapping[str, Any], primary: Mapping[str, str]) -> tuple[float | None, float | None]:
    if not all(metric in METRICS for metric in primary.values()):
        return None, None
    values = {
        task: {name: value for name, raw in mapping(of_task).items() if (value := number(raw)) is not None}
        for task, of_task in scores.items()
    }
    return overall(values, primary)


def _task_part(run: Run, task: str, primary: str, dev: Mapping[str, Any], baseline: Mapping[str, Any]) -> TaskPart:
    recipe = mapping(mapping(run.recipe.get("tasks")).get(task))
    scores = [
        Score(name, number(dev.get(name)), number(baseline.get(name)), name == primary)
        for name in dict.fromkeys([primary, *(key for key in dev if key != "n")])
    ]
    is_regression = recipe.get("kind") == "regression" or primary in ("pearson", "spearman", "mse", "exact_match")
    predictions, matrix = run.predictions.get(task), None
    if predictions is not None:
        build, extra = (score_matrix, "range") if is_regression else (class_matrix, "labels")
        matrix = build(predictions, recipe.get(extra))
    return TaskPart(
        name=task,
        n=_whole(dev.get("n")),
        examples=_whole(mapping(run.summary.get("examples")).get(task)),
        primary=scores[0],
        scores=scores,
        charts=_task_charts(run, task, scores),
        matrix=matrix,
        is_regression=is_regression,
    )


def _task_charts(run: Run, task: str, scores: Sequence[Score]) -> list[Chart]:
    primary = scores[0]
    shown = [s for s in scores if s.is_primary or (s.metric in METRICS and METRICS[s.metric].bounded)]
    lines = [
        Line(score.metric, _curve(run, task, score.metric), "main" if score.is_primary else "side", index)
        for index, score in enumerate(shown)
    ]
    steps = [step for line in lines for step, _ in line.points]
    if steps and primary.baseline is not None:
        ends = [(min(steps), primary.baseline), (max(steps), primary.baseline)]
        lines.append(Line(f"majority baseline, {primary.metric}", ends, "baseline"))
    best = number(mapping(run.summary.get("best")).get("step"))
    charts = [
        line_chart("Training loss", trend("loss", run.losses.get(task, [])), span=run.span, stages=run.stages),
        line_chart("Dev scores", lines[::-1], span=run.span, stages=run.stages, best=best),
    ]
    return [chart for chart in charts if chart is not None]


def _overall_chart(run: Run) -> Chart | None:
    best = number(mapping(run.summary.get("best")).get("step"))
    lines = [
        Line(name, _overall_curve(run, name), style, colour)
        for colour, (name, style) in enumerate((("overall", "main"), ("overall_raw", "side")))
    ]
    return line_chart("Overall on dev", lines[::-1], span=run.span, stages=run.stages, best=best)


def _curve(run: Run, task: str, metric: str) -> list[tuple[int, float]]:
    found = ((record["step"], mapping(mapping(record.get("tasks")).get(task))) for record in run.evaluations)
    return [(step, value) for step, scores in found if (value := number(scores.get(metric))) is not None]


def _overall_curve(run: Run, name: str) -> list[tuple[int, float]]:
    return [(record["step"], value) for record in run.evaluations if (value := number(record.get(name))) is not None]


def _missing(run: Run) -> list[str]:
    return [f"Not in the run folder, so not on this page: {', '.join(run.missing)}."] if run.missing else []


def _findings(run: Run, tasks: Sequence[TaskPart]) -> list[str]:
    """What a reader of the scores should know."""
    found: list[str] = []
    for task in tasks:
        primary = task.primary
        if primary.gain is not None and primary.gain <= 0:
            found.append(f"{task.name} is not better than its majority baseline ({primary.metric}).")
        predictions = run.predictions.get(task.name)
        if predictions is None:
            continue
        if constant_predictions([cell for _, cell in predictions.pairs]):
            found.append(f"{task.name} gives the same prediction for every dev example; correlations are then 0.")
        if predictions.truncated:
            rows = predictions.pairs.total()
            found.append(
                f"{task.name}: {predictions.truncated:,} of {rows:,} dev texts were cut to the longest length."
            )
        if task.matrix is not None and task.matrix.unplaced:
            found.append(f"{task.name}: {task.matrix.unplaced:,} dev predictions fit no class or are no numbers.")
    return found


def _facts(run: Run) -> list[tuple[str, str]]:
    """The header's lines: name and text, without those the run says nothing of."""
    clock = {**mapping(run.state.get("time")), **run.state}
    best = mapping(run.summary.get("best"))
    step = _whole(best.get("step"))
    examples = [_whole(count) or 0 for count in mapping(run.summary.get("examples")).values()]
    facts = [
        ("Seed", run.summary.get("seed", run.recipe.get("seed"))),
        ("Started", clock.get("started") or clock.get("created")),
        ("Finished", clock.get("finished")),
        ("Took", _duration(number(run.summary.get("seconds")))),
        ("Best checkpoint", None if step is None else f"step {step:,}, stage {_text(best.get('stage'))}"),
        ("Examples trained on", f"{sum(examples):,}" if examples else None),
        ("Tokens trained on", _count(run.summary.get("tokens"))),
        ("Hardware", run.state.get("hardware")),
        ("Versions", run.state.get("versions")),
    ]
    return [(name, _text(value)) for name, value in facts if value not in (None, "", {}, [])]


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return " · ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return str(value)


def _whole(value: object) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _count(value: object) -> str | None:
    found = _whole(value)
    return None if found is None else f"{found:,}"


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{amount} {unit}" for amount, unit in parts if amount) or "under 1 s"


def _recipe(run: Run) -> str:
    text = run.recipe_text
    if len(text) > MAX_RECIPE_CHARACTERS:
        return text[:MAX_RECIPE_CHARACTERS] + "\n# ... cut here; the whole recipe is in recipe.yaml"
    return text
