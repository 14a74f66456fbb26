"""``manyhead compare``: finished runs against each other, with intervals, tests and a verdict in words."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyhead.cli.options import Json, Plugins, Quiet, listed
from manyhead.cli.output import score, speaking, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from manyhead.evaluation.statistics.comparison import Comparison, TaskComparison
    from manyhead.evaluation.statistics.intervals import Interval
    from manyhead.evidence.compare import RunsComparison

EXAMPLES = (
    "manyhead compare runs/single runs/multitask",
    "manyhead compare runs/one-13 runs/one-14 runs/multi-13 runs/multi-14",
    "manyhead compare runs/single runs/multitask --level 0.99",
    "manyhead compare runs/single runs/multitask --json | jq .comparisons",
    "",
    "Runs whose recipes differ in name and seed alone are one side: several speak",
    "of the recipe, one run a side of these two models only. The first side is",
    "what the others are compared with.",
)


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", show_default=False, help="Finished run folders.")],
    *,
    level: Annotated[
        float, typer.Option("--level", min=0.5, max=0.999, help="Confidence of intervals; tests are at 1 less this.")
    ] = 0.95,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the resamples and permutations.")] = 0,
    plugins: Plugins = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare finished runs: did it help, did it hurt, or neither?"""
    from manyhead.evidence.compare import compare_runs

    with speaking(as_json=as_json, quiet=quiet) as output:
        found = compare_runs(runs, plugins=listed(plugins), level=level, seed=seed)
        if as_json:
            output.document(found.as_dict())
        else:
            output.show(*shown(found))


def shown(found: "RunsComparison") -> "list[RenderableType]":
    """Tables and sentences, a block for each side that is compared with the first."""
    parts: list[RenderableType] = []
    for side in found.sides:
        seeds = ", ".join(str(run.recipe.seed) for run in side.runs)
        parts.append(f"{side.name}: {', '.join(str(run.path) for run in side.runs)} (seed {seeds})")
    for each in found.comparisons:
        parts += ["", _table(each), ""]
        parts += [f"{task.task}: {task.verdict}. {task.sentence}" for task in _rows(each)]
        parts += [f"only {name} has {', '.join(tasks)}: left out" for name, tasks in each.left_out.items()]
    if found.selected:
        parts += ["", "selected on these rows: the checkpoints were picked by these dev scores, which are a little too"]
        parts += ["good for it; with select_on: {dev: 0.5} in the recipe one half of dev picks and the other is scored"]
    return parts


def interval_cell(interval: "Interval") -> str:
    """A score with its interval."""
    return f"{score(interval.value)}{_ends(interval, '')}"


def _table(found: "Comparison") -> "RenderableType":
    first, second = found.names
    columns = ("task", "metric", "n", first, second, "difference", "p", "p (Holm)", "verdict")
    return table(columns, [_cells(each) for each in _rows(found)], left=2)


def _cells(each: "TaskComparison") -> list[str]:
    difference = f"{each.difference.value:+.3f}{_ends(each.difference, '+')}"
    scores = (interval_cell(each.baseline), interval_cell(each.other))
    return [each.task, each.metric, f"{each.n:,}", *scores, difference, score(each.p), score(each.p_holm), each.verdict]


def _rows(found: "Comparison") -> "list[TaskComparison]":
    return [*found.tasks, *([] if found.overall is None else [found.overall])]


def _ends(interval: "Interval", sign: str) -> str:
    ends: tuple[Any, Any] = (interval.low, interval.high)
    return "" if None in ends else f" [{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]"
