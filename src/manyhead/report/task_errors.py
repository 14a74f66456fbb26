"""What the page shows of a task's errors: the views of `analyse`, laid out as charts and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from manyhead.evaluation.errors.analysis import ErrorAnalysis
from manyhead.evaluation.errors.calibration import ReliabilityBin, reliability, tempered
from manyhead.evaluation.errors.mistakes import Example
from manyhead.evaluation.errors.slices import Slice
from manyhead.evaluation.scored import Scored
from manyhead.report.cells import mapping, number
from manyhead.report.charts.canvas import Chart
from manyhead.report.charts.errors import (
    Bin,
    confusion_chart,
    distribution_chart,
    reliability_chart,
    scatter_chart,
)
from manyhead.report.charts.intervals import Row, interval_chart
from manyhead.report.maps import map_charts
from manyhead.report.matrix import Matrix
from manyhead.report.text import decimal, percent, shortened

MAX_LISTED = 8
"""Examples a list shows; the table of examples has the others."""
MAX_LISTED_CHARACTERS = 240


@dataclass(frozen=True)
class Listed:
    """An example in a list of the page."""

    id: str
    texts: list[str]
    target: str
    predicted: str
    score: str


@dataclass(frozen=True)
class Rate:
    """How often a class is predicted wrongly, and how often it is missed."""

    label: str
    false_positives: str
    false_negatives: str


@dataclass(frozen=True)
class TaskErrors:
    """The errors of one task, arranged for the page."""

    n: int
    matrix: Matrix | None = None
    charts: list[Chart] = field(default_factory=list)
    only_files: list[Chart] = field(default_factory=list)
    """Charts that the page has as tables."""
    facts: list[tuple[str, str]] = field(default_factory=list)
    rates: list[Rate] = field(default_factory=list)
    slices: Sequence[Slice] = ()
    mistakes: list[Listed] = field(default_factory=list)
    suspects: list[Listed] = field(default_factory=list)
    n_suspects: int = 0
    suspects_by: str = ""
    notes: Sequence[str] = ()


def task_errors(
    scored: Scored, found: ErrorAnalysis, fitted: Mapping[str, Any], sentences: Mapping[str, Any]
) -> TaskErrors:
    """Arrange what ``found`` says of ``scored``.

    Args:
        scored: Predictions, at the fitted temperature where there is one.
        found: Their analysis.
        fitted: What the run's summary says of the temperature.
        sentences: What its maps.json says of the task.
    """
    matrix = _matrix(found)
    charts = [*_distribution(found), *_scatter(scored, found), *_reliability(scored, found, fitted), *_slices(found)]
    charts += map_charts(sentences, scored.labels)
    heat: list[Chart] = []
    if matrix is not None and matrix.is_small:
        heat = [confusion_chart("confusion", "Targets against predictions", matrix.names, matrix.counts)]
    labels = found.labels
    return TaskErrors(
        n=found.n,
        matrix=matrix,
        charts=charts,
        only_files=heat,
        facts=[*_facts(found), *_temperature(fitted)],
        rates=_rates(found),
        slices=found.slices or (),
        mistakes=[_listed(each) for each in found.mistakes[:MAX_LISTED]],
        suspects=[] if labels is None else [_listed(each) for each in labels.suspects[:MAX_LISTED]],
        n_suspects=0 if labels is None else labels.n,
        suspects_by="" if labels is None else labels.method,
        notes=found.notes,
    )


def _matrix(found: ErrorAnalysis) -> Matrix | None:
    if found.confusion is not None:
        return Matrix(found.confusion.labels, found.confusion.counts)
    if found.scores is not None:
        names = [f"{bucket.low:.3g} to {bucket.high:.3g}" for bucket in found.scores.buckets]
        return Matrix(names, found.scores.counts)
    return None


def _distribution(found: ErrorAnalysis) -> list[Chart]:
    title = "Distribution of targets and predictions"
    if found.confusion is not None:
        confusion = found.confusion
        return [distribution_chart("distribution", title, confusion.labels, confusion.true, confusion.predicted)]
    if found.scores is not None:
        buckets = found.scores.buckets
        names = [f"{bucket.low:.3g} to {bucket.high:.3g}" for bucket in buckets]
        counts = [bucket.true for bucket in buckets], [bucket.predicted for bucket in buckets]
        return [distribution_chart("distribution", title, names, *counts)]
    return []


def _scatter(scored: Scored, found: ErrorAnalysis) -> list[Chart]:
    if found.scores is None:
        return []
    points = found.scores.points
    title = "Predicted against target"
    return [scatter_chart("scatter", title, points.targets, points.predictions, bounds=scored.range, of=points.of)]


def _reliability(scored: Scored, found: ErrorAnalysis, fitted: Mapping[str, Any]) -> list[Chart]:
    if found.calibration is None or scored.probabilities is None:
        return []
    before: list[Bin] = []
    temperature = number(fitted.get("temperature"))
    if temperature is not None and temperature > 0:
        logs = np.log(np.maximum(scored.probabilities, np.finfo(np.float64).tiny))
        before = _filled(reliability(tempered(logs, 1 / temperature), scored.targets))
    title = "Calibration: is it as right as it is sure?"
    return [reliability_chart("reliability", title, _filled(found.calibration.bins), found.calibration.ece, before)]


def _filled(bins: Sequence[ReliabilityBin]) -> list[Bin]:
    found = [(each.n, each.confidence, each.accuracy) for each in bins]
    return [(n, sure, right) for n, sure, right in found if sure is not None and right is not None]


def _temperature(fitted: Mapping[str, Any]) -> list[tuple[str, str]]:
    temperature, ece = number(fitted.get("temperature")), mapping(fitted.get("ece"))
    if temperature is None:
        return []
    told = [("temperature, fitted on dev", f"{temperature:.2f}")]
    before, after = number(ece.get("before")), number(ece.get("after"))
    if before is not None and after is not None:
        told.append(("ECE without and with it", f"{before:.3f} → {after:.3f}"))
    return told


def _slices(found: ErrorAnalysis) -> list[Chart]:
    rows = [
        Row(each.name, each.value, each.low, each.high, each.rest)
        for each in found.slices or ()
        if each.value is not None
    ]
    chart = interval_chart("slices", f"Slices: {found.metric}", rows, reference="all other examples")
    return [] if chart is None else [chart]


def _facts(found: ErrorAnalysis) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    if found.confusion is not None:
        facts.append(("right class", percent(found.confusion.right)))
        if found.confusion.within_one is not None:
            facts.append(("at most one class off, in the order of labels", percent(found.confusion.within_one)))
    if found.scores is not None:
        scores = found.scores
        facts += [
            ("in the right bucket", percent(scores.right)),
            ("at most 1.0 off", percent(scores.within_one)),
            ("mean error, with its sign", decimal(scores.bias, "+")),
            ("mean error, without it", decimal(scores.mean_absolute)),
            ("beyond the range", f"{scores.clipped:,}"),
        ]
    if found.calibration is not None:
        calibration = found.calibration
        facts += [
            ("mean probability of its class", percent(calibration.confidence)),
            ("calibration error (ECE)", decimal(calibration.ece)),
            ("Brier score", decimal(calibration.brier)),
            ("log loss", decimal(calibration.nll)),
        ]
    return facts


def _rates(found: ErrorAnalysis) -> list[Rate]:
    if found.confusion is None or len(found.confusion.rates) > 60:
        return []

    def share(rate: float | None, count: int, of: int) -> str:
        return "\u2013" if rate is None else f"{percent(rate)} ({count:,} of {of:,})"

    return [
        Rate(
            each.label,
            share(each.false_positive_rate, each.false_positives, each.negatives),
            share(each.false_negative_rate, each.false_negatives, each.positives),
        )
        for each in found.confusion.rates
    ]


def _listed(example: Example) -> Listed:
    target, predicted = (
        f"{value:.2f}" if isinstance(value, float) else shortened(str(value), 80)
        for value in (example.target, example.predicted)
    )
    texts = [shortened(text, MAX_LISTED_CHARACTERS) for text in example.texts]
    score = f"{example.score:.2f}"
    return Listed(shortened(example.id, 80), texts, target, predicted, score)
