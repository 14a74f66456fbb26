"""Classes predicted against true classes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from manyhead.evaluation.scored import Scored


@dataclass(frozen=True)
class ClassRates:
    """How often one class is predicted wrongly, and how often it is missed.

    ``false_positives`` of the ``negatives`` (examples of other classes) are predicted as this one, ``false_negatives``
    of its ``positives`` as another. Rates are FP/N and FN/P; None where there are none to divide by.
    """

    label: str
    positives: int
    negatives: int
    false_positives: int
    false_negatives: int
    false_positive_rate: float | None
    false_negative_rate: float | None


@dataclass(frozen=True)
class Confusion:
    """Counts of C classes.

    Attributes:
        labels: The classes (C), in the recipe's order.
        counts: (C, C), a row a true class, a column a predicted one.
        true: (C,) examples of each class.
        predicted: (C,) predictions of each class.
        rates: Of every class; of two classes, of class 1 alone.
        right: Share of the examples whose class is predicted.
        within_one: Share at most one class off in the order of ``labels``, which means something where that order
            does; None for two classes, where it is 1.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    true: tuple[int, ...]
    predicted: tuple[int, ...]
    rates: tuple[ClassRates, ...]
    right: float
    within_one: float | None


def confusion_of(scored: Scored) -> Confusion:
    """The confusion of a classification task."""
    counts = table_of(scored.targets, scored.values, len(scored.labels))
    true, predicted = counts.sum(1), counts.sum(0)
    classes = range(len(scored.labels)) if len(scored.labels) != 2 else [1]
    hits = counts.diagonal()
    return Confusion(
        labels=scored.labels,
        counts=tuple(tuple(row) for row in counts.tolist()),
        true=tuple(true.tolist()),
        predicted=tuple(predicted.tolist()),
        rates=tuple(
            _rates(scored.labels[each], int(hits[each]), int(true[each]), int(predicted[each]), scored.n)
            for each in classes
        ),
        right=float(hits.sum() / scored.n),
        within_one=float(np.mean(np.abs(scored.values - scored.targets) <= 1)) if len(scored.labels) > 2 else None,
    )


def table_of(rows: ArrayLike, columns: ArrayLike, size: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """How often each pair of (row, column), both (E,) and below ``size``, occurs: (size, size)."""
    places = np.asarray(rows) * size + np.asarray(columns)
    return np.bincount(places, minlength=size * size).reshape(size, size)


def _rates(label: str, hits: int, positives: int, predicted: int, n: int) -> ClassRates:
    negatives, wrong, missed = n - positives, predicted - hits, positives - hits
    return ClassRates(
        label,
        positives,
        negatives,
        wrong,
        missed,
        wrong / negatives if negatives else None,
        missed / positives if positives else None,
    )
