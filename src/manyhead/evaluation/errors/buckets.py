"""Predicted scores against true scores: by buckets, as residuals, and as the points of a scatter."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyhead.evaluation.errors.confusion import table_of
from manyhead.evaluation.scored import Scored

MOST_UNITS = 10
"""Widest range whose buckets are its units, as 0..5; others are cut into `EQUAL` parts."""
EQUAL = 5
MOST_POINTS = 1000
"""Points of a scatter, at most."""


@dataclass(frozen=True)
class Bucket:
    """Scores from ``low`` up to ``high``, which belongs to the last bucket only.

    ``true`` and ``predicted`` count them; ``right``: share of the true ones that are predicted in the same bucket, None
    where there are none.
    """

    low: float
    high: float
    true: int
    predicted: int
    right: float | None


@dataclass(frozen=True)
class Scatter:
    """Points of up to `MOST_POINTS` examples, evenly spread over the ``of`` examples: their rows, targets, values."""

    rows: tuple[int, ...]
    targets: tuple[float, ...]
    predictions: tuple[float, ...]
    of: int


@dataclass(frozen=True)
class ScoreErrors:
    """How far predicted scores are off.

    Attributes:
        buckets: B of them, from low to high. Predictions beyond the range count as its ends.
        counts: (B, B), a row a true bucket, a column a predicted one.
        right: Share of the examples predicted in their own bucket.
        within_one: Share whose prediction, clipped to the range, is at most 1.0 off.
        clipped: Predictions that lie beyond the range.
        bias: Mean residual, prediction minus target; above 0, predictions are too high.
        spread: Standard deviation of the residuals.
        mean_absolute: Mean of their absolute values.
        points: For a scatter.
    """

    buckets: tuple[Bucket, ...]
    counts: tuple[tuple[int, ...], ...]
    right: float
    within_one: float
    clipped: int
    bias: float
    spread: float
    mean_absolute: float
    points: Scatter


def score_errors_of(scored: Scored) -> ScoreErrors:
    """The errors of a task that predicts scores; all of them must be finite numbers."""
    edges = bucket_edges(scored)
    low, high = scored.range or (-np.inf, np.inf)
    clipped = np.clip(scored.values, low, high)
    true, predicted = _bucket(scored.targets, edges), _bucket(clipped, edges)
    counts = table_of(true, predicted, len(edges) - 1)
    sums, columns, hits = counts.sum(1).tolist(), counts.sum(0).tolist(), counts.diagonal().tolist()
    residuals = scored.values - scored.targets
    return ScoreErrors(
        buckets=tuple(
            Bucket(low, high, n, columns[place], hits[place] / n if n else None)
            for place, (low, high, n) in enumerate(zip(edges[:-1], edges[1:], sums, strict=True))
        ),
        counts=tuple(tuple(row) for row in counts.tolist()),
        right=sum(hits) / scored.n,
        within_one=float(np.mean(np.abs(clipped - scored.targets) <= 1)),
        clipped=int(np.sum(clipped != scored.values)),
        bias=float(residuals.mean()),
        spread=float(residuals.std()),
        mean_absolute=float(np.abs(residuals).mean()),
        points=_scatter(scored),
    )


def bucket_edges(scored: Scored) -> list[float]:
    """The ends of the buckets, one more than there are.

    Units of a range between whole numbers that has at most `MOST_UNITS` of them; else `EQUAL` parts of the range, or,
    without one, of what the targets span. A single bucket where all targets are the same.
    """
    low, high = map(float, scored.range or (scored.targets.min(), scored.targets.max()))
    units = high - low
    in_units = scored.range is not None and low.is_integer() and 2 <= units <= MOST_UNITS and units.is_integer()
    if not units > 0:
        return [low, high]
    return np.linspace(low, high, (int(units) if in_units else EQUAL) + 1).tolist()


def _bucket(values: NDArray[Any], edges: list[float]) -> NDArray[np.int64]:
    """The bucket of each value (E,); those beyond the edges are in the first or last one."""
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def _scatter(scored: Scored) -> Scatter:
    rows = np.unique(np.linspace(0, scored.n - 1, min(scored.n, MOST_POINTS)).round().astype(np.int64))
    return Scatter(
        tuple(rows.tolist()),
        tuple(scored.targets[rows].astype(float).tolist()),
        tuple(scored.values[rows].astype(float).tolist()),
        scored.n,
    )
