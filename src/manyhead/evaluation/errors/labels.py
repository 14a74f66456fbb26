"""Labels that may be wrong: a suspicion to look at, not a finding.

The model did not train on dev rows, so what it is sure of against their labels says something of the labels. But a
model that is wrong in one way, say about irony, suspects the right labels of all such rows.
"""

from dataclasses import dataclass

import numpy as np

from manyhead.evaluation.errors.mistakes import MOST, Example, examples_of, highest
from manyhead.evaluation.scored import Scored

FAR = 3.5
"""Robust z from which on a residual is suspicious (Iglewicz and Hoaglin 1993)."""
_ALIKE = 1e-6
"""Probabilities that are nearer than this are the same, but for rounding."""
_CONSISTENT = 0.6744897501960817
"""Median absolute deviation of a normal distribution of standard deviation 1."""


@dataclass(frozen=True)
class LabelSuspicions:
    """Rows whose labels may be wrong, the most suspicious first.

    Of classes (confident learning: Northcutt, Jiang and Chuang 2021), ``suspects`` are given one class and are, for the
    model, confidently of another: among the classes whose probability reaches the class's threshold, the mean
    probability of it over the rows that are given it, the most probable is not the given one. ``predicted`` is that
    class, ``score`` 1 minus the probability of the given one. ``thresholds`` (C,), None for classes that no row has;
    ``joint`` (C, C) counts the rows by given (row) and confident class (column).

    Of scores, ``suspects`` have a residual whose robust z (distance from the median over the median absolute deviation,
    times 0.6745) is beyond `FAR`, and ``score`` is its absolute value.
    """

    method: str
    n: int
    suspects: tuple[Example, ...]
    thresholds: tuple[float | None, ...] = ()
    joint: tuple[tuple[int, ...], ...] = ()


def label_suspicions_of(scored: Scored, most: int = MOST) -> LabelSuspicions:
    """The suspicious rows. Raises ValueError, which says why, where nothing can be suspected."""
    return _of_classes(scored, most) if scored.kind == "classification" else _of_scores(scored, most)


def _of_classes(scored: Scored, most: int) -> LabelSuspicions:
    if scored.probabilities is None:
        raise ValueError("there are no probabilities")
    if len(np.unique(scored.targets)) < 2:
        raise ValueError("one class only")
    probabilities, given = scored.probabilities, scored.targets
    if float(np.ptp(probabilities, axis=0).max()) < _ALIKE:
        raise ValueError("all probabilities are alike")
    classes = range(probabilities.shape[1])
    thresholds = np.array([probabilities[given == c, c].mean() if (given == c).any() else np.inf for c in classes])
    reached = probabilities >= thresholds - _ALIKE
    confident = np.where(reached, probabilities, -1.0).argmax(1)
    counted = reached.any(1)
    joint = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(joint, (given[counted], confident[counted]), 1)
    doubt = 1 - probabilities[np.arange(scored.n), given]
    suspicious = counted & (confident != given)
    return LabelSuspicions(
        "confident learning",
        int(suspicious.sum()),
        examples_of(scored, highest(doubt, suspicious, most), doubt, confident),
        tuple(float(each) if np.isfinite(each) else None for each in thresholds),
        tuple(tuple(row) for row in joint.tolist()),
    )


def _of_scores(scored: Scored, most: int) -> LabelSuspicions:
    residuals = scored.values - scored.targets
    distance = np.abs(residuals - np.median(residuals))
    deviation = float(np.median(distance))
    if not deviation > 0:
        raise ValueError("half of the residuals are the same, so none is far by comparison")
    z = _CONSISTENT * distance / deviation
    suspicious = z > FAR
    return LabelSuspicions(
        "robust z of residuals", int(suspicious.sum()), examples_of(scored, highest(z, suspicious, most), z)
    )
