"""What the page says of one task of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from manyhead.evaluation.errors.analysis import analyse
from manyhead.evaluation.metrics import METRICS, constant_predictions
from manyhead.evaluation.scored import Scored
from manyhead.evaluation.statistics.intervals import score_interval, score_of
from manyhead.report.cells import mapping, number
from manyhead.report.charts.canvas import Chart
from manyhead.report.charts.curves import Line, line_chart, trend
from manyhead.report.predictions import Predictions, is_regression
from manyhead.report.read import Run
from manyhead.report.task_errors import TaskErrors, task_errors
from manyhead.report.text import decimal
from manyhead.report.verdict import Score

MAX_CLASSES = 1000
"""Of a task whose errors are looked at: tables of them grow by the square."""
MAX_ROUNDING = 0.001
"""Difference between a score and that of the predictions, which are written with fewer digits."""
POOR_CALIBRATION = 0.1
"""An expected calibration error from which on it is told as a doubt."""


@dataclass(frozen=True)
class TaskPart:
    """What the page says of one task.

    ``primary`` is the first of ``scores``; ``scored`` the predictions that all of ``errors`` is about.
    """

    name: str
    n: int | None
    examples: int | None
    scores: list[Score]
    charts: list[Chart]
    is_regression: bool
    errors: TaskErrors | None = None
    scored: Scored | None = None
    doubts: list[str] = field(default_factory=list)

    @property
    def primary(self) -> Score:
        """The task's own metric."""
        return self.scores[0]


def task_part(
    run: Run, task: str, primary: str, dev: Mapping[str, Any], baseline: Mapping[str, Any], *, with_errors: bool = True
) -> TaskPart:
    """Arrange what the run says of ``task``: its scores on ``dev``, the majority baseline's, and its errors."""
    recipe = mapping(mapping(run.recipe.get("tasks")).get(task))
    predictions = run.predictions.get(task)
    scored = None if predictions is None else predictions.scored
    names = dict.fromkeys([primary, *(key for key in dev if key != "n")])
    scores = [_score(name, name == primary, dev, baseline, scored) for name in names]
    errors, doubts = None, [*_doubts(predictions), *_contradiction(scores[0], scored)]
    if scored is not None and len(scored.labels) > MAX_CLASSES:
        doubts.append(f"It has {len(scored.labels):,} classes; errors are looked at for up to {MAX_CLASSES:,}.")
    elif scored is not None and with_errors:
        analysis = analyse(scored)
        fitted = mapping(mapping(run.summary.get("calibration")).get(task))
        errors = task_errors(scored, analysis, fitted, mapping(run.maps.get(task)))
        if analysis.calibration is not None and analysis.calibration.ece > POOR_CALIBRATION:
            sure, right = analysis.calibration.confidence, analysis.calibration.accuracy
            doubts.append(f"Its probabilities mislead: {sure:.0%} on average, while {right:.0%} are right.")
    return TaskPart(
        name=task,
        n=whole(dev.get("n")),
        examples=whole(mapping(run.summary.get("examples")).get(task)),
        scores=scores,
        charts=_charts(run, task, scores),
        is_regression=scored.kind == "regression"
        if scored is not None
        else is_regression({"metric": primary, **recipe}),
        errors=errors,
        scored=scored,
        doubts=doubts,
    )


def whole(value: object) -> int | None:
    """``value`` as a count, if it is one."""
    found = number(value)
    return None if found is None else int(found)


def _score(
    name: str, is_primary: bool, dev: Mapping[str, Any], baseline: Mapping[str, Any], scored: Scored | None
) -> Score:
    value, base = number(dev.get(name)), number(baseline.get(name))
    if not is_primary or scored is None or not _fits(name, scored):
        return Score(name, value, base, is_primary)
    interval = score_interval(scored, name)
    if value is None:
        value = number(interval.value)
    return Score(name, value, base, is_primary, interval.low, interval.high, interval.reason)


def _contradiction(primary: Score, scored: Scored | None) -> list[str]:
    """That the predictions are not those of the score."""
    if scored is None or primary.value is None or not _fits(primary.metric, scored):
        return []
    found = score_of(scored, primary.metric)
    if abs(found - primary.value) <= MAX_ROUNDING:
        return []
    return [f"The predictions score {decimal(found)}, so they are not those that the run was scored by."]


def _fits(metric: str, scored: Scored) -> bool:
    return metric in METRICS and METRICS[metric].fits(scored.kind, len(scored.labels))


def _doubts(predictions: Predictions | None) -> list[str]:
    found: list[str] = []
    if predictions is None:
        return ["There are no predictions: no interval, and no look at errors."]
    scored = predictions.scored
    if predictions.unplaced:
        found.append(
            f"{predictions.unplaced:,} of {predictions.rows:,} dev predictions fit no class or are no numbers."
        )
    if scored is None:
        return found
    if constant_predictions(scored.values):
        found.append("It gives the same prediction for every dev example; correlations are then 0.")
    if constant_predictions(scored.targets):
        found.append("All dev targets are the same, so its score says little.")
    if scored.truncated is not None and (cut := int(scored.truncated.sum())):
        found.append(f"{cut:,} of {scored.n:,} dev texts were cut to the longest length.")
    if scored.n < 100:
        found.append(f"{scored.n} dev examples tell large differences only.")
    return found


def _charts(run: Run, task: str, scores: Sequence[Score]) -> list[Chart]:
    primary = scores[0]
    shown = [s for s in scores if s.is_primary or (s.metric in METRICS and METRICS[s.metric].bounded)]
    lines = [
        Line(score.metric, score_curve(run, task, score.metric), "main" if score.is_primary else "side", index)
        for index, score in enumerate(shown)
    ]
    steps = [step for line in lines for step, _ in line.points]
    if steps and primary.baseline is not None:
        ends = [(min(steps), primary.baseline), (max(steps), primary.baseline)]
        lines.append(Line(f"baseline, {primary.metric}", ends, "baseline"))
    if len(run.evaluations) == 1:
        lines = []  # one evaluation makes no curve; its scores stand in the tables
    best = number(mapping(run.summary.get("best")).get("step"))
    common: dict[str, Any] = {"span": run.span, "stages": run.stages}
    norms = trend("gradient norm", run.task_norms.get(task, []))
    charts = [
        line_chart("loss", "Training loss", trend("loss", run.losses.get(task, [])), **common),
        line_chart("scores", "Dev scores", lines[::-1], best=best, **common),
        line_chart("norm", "Norm of its own gradient", norms, **common),
    ]
    return [chart for chart in charts if chart is not None]


def score_curve(run: Run, task: str, metric: str) -> list[tuple[int, float]]:
    """A metric of a task over the steps of the evaluations."""
    found = ((record["step"], mapping(mapping(record.get("tasks")).get(task))) for record in run.evaluations)
    return [(step, value) for step, scores in found if (value := number(scores.get(metric))) is not None]
