"""``manyhead evaluate``: scores of a model on data with targets."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from manyhead.cli.options import DataDir, Json, Overrides, Plugins, Precision, Quiet, RunOrModel, listed
from manyhead.cli.output import Output, interval_ends, score, speaking, table
from manyhead.cli.stored import Stored, find_model
from manyhead.errors import DataError, Problem, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from manyhead.data.examples import Examples
    from manyhead.data.task_data import TaskData
    from manyhead.evaluation.evaluate import Evaluation
    from manyhead.evaluation.statistics.intervals import Interval
    from manyhead.recipe.schema import Recipe, Task

EXAMPLES = (
    "manyhead evaluate runs/cs224n",
    "manyhead evaluate runs/cs224n --task sst --split test",
    "manyhead evaluate runs/cs224n --task sst --file new.csv",
    "manyhead evaluate runs/cs224n --json | jq .overall",
)

_NOTE_SECONDS = 10.0

SplitName = Literal["train", "dev", "test"]


def evaluate(
    model: RunOrModel,
    *,
    tasks: Annotated[
        list[str] | None, typer.Option("--task", metavar="T", help="Score this task only. Can be repeated.")
    ] = None,
    split: Annotated[SplitName, typer.Option("--split", help="The split of the recipe's data.")] = "dev",
    file: Annotated[
        Path | None, typer.Option("--file", metavar="F", help="Score this file in place of a split; needs one --task.")
    ] = None,
    data_dir: DataDir = None,
    precision: Precision = None,
    overrides: Overrides = None,
    plugins: Plugins = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a model on data with targets."""
    with speaking(as_json=as_json, quiet=quiet) as output:
        if file is not None and len(listed(tasks)) != 1:
            raise UsageError(f"--file with {len(listed(tasks))} tasks; expected one; name it by --task")
        stored = find_model(
            model, plugins=listed(plugins), overrides=listed(overrides), data_dir=data_dir, precision=precision
        )
        examples = open_examples(stored, listed(tasks), split, file)
        if not tasks and (absent := [name for name in stored.recipe.tasks if name not in examples]):
            output.note(f"without {split} data, so left out: {', '.join(absent)}")
        found = score_examples(stored, examples, note=output.note)
        from manyhead.evaluation.statistics.intervals import intervals_of

        intervals = intervals_of(found.scored, means=found.overall is not None)
        selection = _selection(stored, split, file)
        if as_json:
            shown = {name: each.as_dict() for name, each in intervals.items()}
            output.document({**found.as_dict(), "intervals": shown, "selection": selection})
        else:
            output.show(*_shown(found, stored.recipe, intervals))
            output.show(*([] if selection is None else [f"scores: {selection}"]))
        _note_constants(found, output)


def open_examples(stored: Stored, names: Sequence[str], split: SplitName, file: Path | None) -> "dict[str, Examples]":
    """The examples to score, by task: of ``file``, or of a split of all tasks (or of those in ``names``) that have it.

    Raises `UsageError` where there are none or they have no targets, `DataError` for files that cannot be used.
    """
    found: dict[str, Examples] = {}
    problems: list[Problem] = []
    for name in names or stored.recipe.tasks:
        try:
            examples = _open(stored.recipe, name, stored.task(name), split, file)
        except DataError as error:
            problems += error.problems
            continue
        if examples is not None:
            found[name] = examples
        elif names:
            problems.append(
                Problem(f"task '{name}' has no {split} file", do=f"set tasks.{name}.files.{split}, or use --file")
            )
    if problems:
        raise DataError(problems)
    if not found:
        raise UsageError(f"no task has {split} data; expected files in the recipe; name one by --task T --file F")
    blind = [f"{name}: {found[name].table.path} has no targets" for name in found if not found[name].has_targets]
    if blind:
        raise UsageError(
            "\n".join(f"{line}; expected a column with them to score by; use manyhead predict" for line in blind)
        )
    return found


def score_examples(stored: Stored, examples: "Mapping[str, Examples]", *, note: Callable[[str], None]) -> "Evaluation":
    """Loads the model and scores it; ``note`` is told from time to time how far it is."""
    from manyhead.data.cache import load_examples
    from manyhead.data.selection import scored_rows
    from manyhead.evaluation.evaluate import evaluate as evaluate_tasks

    model = stored.load()
    max_tokens = model.recipe.encoder.max_tokens
    data = {name: load_examples(each, model.tokenizer, max_tokens=max_tokens) for name, each in examples.items()}
    dev = {name: each for name, each in data.items() if each.split == "dev"}
    _warn_of_other_rows(stored, dev, note)
    data |= scored_rows(stored.recipe, dev)
    for split in data.values():
        for warning in split.warnings:
            note(str(warning))
    tick = _ticker(sum(split.n_examples for split in data.values()), note)
    return evaluate_tasks(model.frozen, stored.recipe, data, model.objectives, tick=tick)


def _open(recipe: "Recipe", name: str, task: "Task", split: SplitName, file: Path | None) -> "Examples | None":
    from manyhead.data.examples import read_examples, reference_of
    from manyhead.data.resolve import resolve_files

    if file is not None:
        # As a test split, whose targets may be missing: that gets a message of its own.
        whole = task.model_copy(update={"limit": {}})
        return read_examples(name, whole, "test", file, seed=recipe.seed)
    reference = reference_of(task, split)
    if reference is None:
        return None
    return read_examples(name, task, split, resolve_files(recipe)(reference), seed=recipe.seed)


def _selection(stored: Stored, split: SplitName, file: Path | None) -> str | None:
    """What picked the checkpoint, where that bears on the scores."""
    from manyhead.data.selection import selection_note

    return selection_note(stored.recipe) if split == "dev" and file is None else None


def _warn_of_other_rows(stored: Stored, dev: "Mapping[str, TaskData]", note: Callable[[str], None]) -> None:
    """Which rows picked the checkpoint is known by their number, so only of the run's own dev rows."""
    from manyhead.files import read_json

    state = stored.folder / "state.json"
    if stored.recipe.select_on is None or not state.is_file():
        return
    trained = read_json(state)["data"]
    for name, data in dev.items():
        rows = trained.get(f"{name}.dev", {}).get("rows", data.n_examples)
        if rows != data.n_examples:
            note(
                f"{name}: {data.n_examples:,} dev rows, and the run had {rows:,}: rows that picked its checkpoint may "
                "be among those that are scored"
            )


def _ticker(total: int, note: Callable[[str], None]) -> Callable[[int], None]:
    done, said = 0, time.monotonic()

    def tick(examples: int) -> None:
        nonlocal done, said
        done += examples
        if time.monotonic() - said >= _NOTE_SECONDS:
            said = time.monotonic()
            note(f"scored {done:,} of {total:,} examples")

    return tick


def _shown(found: "Evaluation", recipe: "Recipe", intervals: "Mapping[str, Interval]") -> "list[RenderableType]":
    rows: list[tuple[object, ...]] = []
    ends = {name: interval_ends(each.low, each.high) for name, each in intervals.items()}
    for name, scores in found.tasks.items():
        metric = recipe.tasks[name].metric
        others = [f"{other} {score(value)}" for other, value in scores.items() if other not in (metric, "n")]
        rows.append((name, metric, ", ".join(others), score(scores[metric]), ends[name], f"{scores['n']:,}"))
    means = (("overall", "mean, correlations as (r+1)/2", found.overall), ("overall_raw", "mean", found.overall_raw))
    rows += [(name, what, "", score(value), ends.get(name, "-"), "") for name, what, value in means]
    return [table(("task", "metric", "others", "score", "95 % interval", "n"), rows, left=3)]


def _note_constants(found: "Evaluation", output: Output) -> None:
    for name, sides in found.constant.items():
        output.note(*(f"{name}: all {side} are the same, so correlations are 0 by definition" for side in sides))
