"""Several runs side by side: the verdict per task, their curves, and what keeps them from being compared."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from manyhead.errors import ManyheadError
from manyhead.evaluation.errors.mistakes import disagreements_of
from manyhead.evaluation.metrics import METRICS
from manyhead.evaluation.scored import Scored
from manyhead.evaluation.statistics.comparison import Comparison, TaskComparison
from manyhead.evidence.compare import compare_finished
from manyhead.evidence.runs import read_those_finished
from manyhead.report.charts.canvas import Chart
from manyhead.report.charts.curves import Line, line_chart
from manyhead.report.charts.intervals import Row, interval_chart
from manyhead.report.examples import alike
from manyhead.report.read import Run
from manyhead.report.task_part import score_curve

VERDICTS = ("helped", "hurt", "no evidence")


@dataclass(frozen=True)
class Against:
    """One side against the first: ``rows`` are the tasks, and ``overall`` last where there is one."""

    comparison: Comparison
    rows: list[TaskComparison]
    headline: str
    chart: Chart | None


@dataclass(frozen=True)
class SideBySide:
    """What the page says of several runs.

    ``problem`` is why there is no comparison, ``left_out`` why some of the runs are not in it.
    """

    sides: list[Against] = field(default_factory=list)
    problem: str | None = None
    selected: bool = False
    curves: list[Chart] = field(default_factory=list)
    disagreements: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def side_by_side(
    folders: Sequence[Path], runs: Sequence[Run], names: Sequence[str], predictions: dict[str, dict[str, Scored]]
) -> SideBySide:
    """Compare the runs in ``folders``, which were read as ``runs``; ``predictions`` are by task and run's name."""
    curves = _curves(runs, names)
    disagreements = _disagreements(predictions)
    finished, problems = read_those_finished(folders)
    left_out = [str(problem) for problem in problems]
    if len(finished) < 2:
        return SideBySide(problem="\n".join(left_out), curves=curves, disagreements=disagreements)
    try:
        found = compare_finished(finished)
    except ManyheadError as error:
        return SideBySide(problem="\n".join([str(error), *left_out]), curves=curves, disagreements=disagreements)
    sides = [against(each, place) for place, each in enumerate(found.comparisons, 1)]
    return SideBySide(sides, None, found.selected, curves, disagreements, left_out)


def against(comparison: Comparison, place: int) -> Against:
    """What the page says of one comparison, the ``place``-th on it."""
    rows = [*comparison.tasks, *([] if comparison.overall is None else [comparison.overall])]
    drawn = [
        Row(row.task, row.difference.value, row.difference.low, row.difference.high)
        for row in rows
        if row.metric not in METRICS or METRICS[row.metric].bounded
    ]
    title = f"{comparison.names[1]} less {comparison.names[0]}, with 95\u00a0% intervals"
    chart = interval_chart(f"differences-{place}", title, drawn, line=0.0, reference="no difference")
    return Against(comparison, rows, _headline(comparison), chart)


def _headline(comparison: Comparison) -> str:
    """The verdicts of all tasks in one sentence."""
    by_verdict = {verdict: [row.task for row in comparison.tasks if row.verdict == verdict] for verdict in VERDICTS}
    words = {
        "helped": f"{comparison.names[1]} is better than {comparison.names[0]} in",
        "hurt": f"{comparison.names[1]} is worse than {comparison.names[0]} in",
        "no evidence": "there is no evidence of a difference in",
    }
    said = [f"{words[verdict]} {', '.join(tasks)}" for verdict, tasks in by_verdict.items() if tasks]
    if len(by_verdict["no evidence"]) == len(comparison.tasks):
        return f"There is no evidence that {comparison.names[1]} differs from {comparison.names[0]}."
    return f"{'; '.join(said)}."


def _curves(runs: Sequence[Run], names: Sequence[str]) -> list[Chart]:
    """Each task's own metric over the steps of all runs."""
    charts: list[Chart] = []
    for task in dict.fromkeys(task for run in runs for task in run.tasks):
        metric = next((metric for run in runs if (metric := run.metric(task)) is not None), None)
        if metric is None:
            continue
        lines = [
            Line(name, score_curve(run, task, metric), "main", place)
            for place, (name, run) in enumerate(zip(names, runs, strict=True))
        ]
        if sum(len(line.points) > 1 for line in lines) > 1:
            chart = line_chart(f"{task}-runs", f"{task}: {metric} on dev", lines)
            charts += [] if chart is None else [chart]
    return charts


def _disagreements(predictions: dict[str, dict[str, Scored]]) -> list[str]:
    """Of two runs, how many examples of a task one has right and the other not; of more, nothing."""
    said: list[str] = []
    for task, by_run in predictions.items():
        if len(by_run) != 2 or len(alike(by_run)) != 2:
            continue
        (first, ours), (second, theirs) = by_run.items()
        found = disagreements_of(ours, theirs, 0)
        right = "nearer to the target in" if ours.kind == "regression" else "alone right in"
        said.append(
            f"{task}: {first} is {right} {found.n_first:,} examples, {second} in {found.n_second:,}; "
            f"in {found.n_alike:,} they are alike."
        )
    return said
