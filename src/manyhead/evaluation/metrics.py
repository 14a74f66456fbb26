"""Scores of predictions: pure functions of numpy arrays, and the table that says what each one is.

Shapes: predictions and targets are (E,), one value an example. Classification works on class indices (integers from
0, the recipe's order of labels), regression on values of the target column. Every function takes
``(predictions, targets)`` in this order, wants at least one example and raises `ValueError` on other shapes.

A correlation needs both sides to vary: where one is constant, `pearson`, `spearman` and `mcc` are 0 by definition,
and `constant_sides` tells the caller to say so. A value that is not a number makes `pearson`, `spearman` and
`mse` not a number, and is no `exact_match`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Kind = Literal["classification", "regression"]
Range = tuple[float, float]


def accuracy(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Share of the examples whose class is predicted."""
    predicted, actual = _class_columns(predictions, targets)
    return float(np.mean(predicted == actual))


def macro_f1(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Mean F1 of the classes that occur among the targets or the predictions."""
    hits, predicted, actual = _class_counts(predictions, targets)
    occurs = predicted + actual > 0
    return float(np.mean(2 * hits[occurs] / (predicted + actual)[occurs]))


def f1(predictions: ArrayLike, targets: ArrayLike) -> float:
    """F1 of class 1 of two; 0 where class 1 is neither predicted nor a target."""
    hits, predicted, actual = _class_counts(predictions, targets)
    if len(hits) > 2:
        raise ValueError(f"f1 is for two classes, found class {len(hits) - 1}; macro_f1 takes any number")
    if len(hits) < 2:
        return 0.0
    return float(2 * hits[1] / (predicted[1] + actual[1]))


def mcc(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Matthews correlation coefficient of any number of classes; 0 where one side is constant."""
    hits, predicted, actual = (counts.astype(np.float64) for counts in _class_counts(predictions, targets))
    n = actual.sum()
    spread = math.sqrt(n**2 - predicted @ predicted) * math.sqrt(n**2 - actual @ actual)
    return float((hits.sum() * n - predicted @ actual) / spread) if spread > 0 else 0.0


def pearson(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Pearson's r; 0 where one side is constant."""
    predicted, actual = _number_columns(predictions, targets)
    if not (np.isfinite(predicted).all() and np.isfinite(actual).all()):
        return math.nan
    return _correlation(predicted, actual)


def spearman(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Spearman's rho, equal values sharing their mean rank; 0 where one side is constant."""
    predicted, actual = _number_columns(predictions, targets)
    if np.isnan(predicted).any() or np.isnan(actual).any():
        return math.nan
    return _correlation(_ranks(predicted), _ranks(actual))


def exact_match(predictions: ArrayLike, targets: ArrayLike, range: Range = (-math.inf, math.inf)) -> float:
    """Share of the examples whose prediction, clipped to ``range``, rounds to the same integer as the target.

    Halves round up. Targets are not clipped.
    """
    return float(np.mean(exact_matches(predictions, targets, range)))


def exact_matches(predictions: ArrayLike, targets: ArrayLike, range: Range = (-math.inf, math.inf)) -> Array:
    """Which examples `exact_match` counts: (E,) bool."""
    predicted, actual = _number_columns(predictions, targets)
    return _round_half_up(np.clip(predicted, *range)) == _round_half_up(actual)


def mse(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Mean squared error, in squared units of the target."""
    predicted, actual = _number_columns(predictions, targets)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.mean(np.square(predicted - actual)))


@dataclass(frozen=True)
class Metric:
    """What a metric is: the tasks it fits, and how its value reads.

    ``bounded`` metrics may enter a mean over tasks. ``n_classes`` limits a metric to tasks with that many classes.
    ``takes_range`` metrics are given the task's range.
    """

    kinds: tuple[Kind, ...]
    function: Callable[..., float]
    higher_is_better: bool = True
    bounded: bool = True
    is_correlation: bool = False
    n_classes: int | None = None
    takes_range: bool = False

    def fits(self, kind: Kind, n_classes: int) -> bool:
        """Whether a task of this kind, with this many classes (0 for regression), can be scored so."""
        return kind in self.kinds and self.n_classes in (None, n_classes)


_CLASSES: tuple[Kind, ...] = ("classification",)
_NUMBERS: tuple[Kind, ...] = ("regression",)

METRICS: dict[str, Metric] = {
    "accuracy": Metric(_CLASSES, accuracy),
    "macro_f1": Metric(_CLASSES, macro_f1),
    "f1": Metric(_CLASSES, f1, n_classes=2),
    "mcc": Metric(_CLASSES, mcc, is_correlation=True),
    "pearson": Metric(_NUMBERS, pearson, is_correlation=True),
    "spearman": Metric(_NUMBERS, spearman, is_correlation=True),
    "exact_match": Metric(_NUMBERS, exact_match, takes_range=True),
    "mse": Metric(_NUMBERS, mse, higher_is_better=False, bounded=False),
}
"""Name, as in a recipe's ``metric``, to what it is."""


def task_scores(
    kind: Kind,
    predictions: ArrayLike,
    targets: ArrayLike,
    range: Range | None = None,
    n_classes: int = 0,
) -> dict[str, float | int]:
    """Every metric that fits the task, and ``n``, the number of examples; without examples ``n`` alone."""
    n = len(np.asarray(targets))
    scores: dict[str, float | int] = {}
    for name, metric in METRICS.items():
        if n and metric.fits(kind, n_classes):
            extra = (range,) if metric.takes_range and range is not None else ()
            scores[name] = metric.function(predictions, targets, *extra)
    return {**scores, "n": n}


def overall(
    scores: Mapping[str, Mapping[str, float | int]], primary: Mapping[str, str]
) -> tuple[float | None, float | None]:
    """One figure for all tasks: ``(overall, overall_raw)``.

    Both are the mean over the tasks of ``primary`` of each task's primary metric. ``overall`` maps correlations from
    -1..1 to 0..1 by (r+1)/2, ``overall_raw`` takes them as they are. Both are None where there is no such mean: no
    tasks, a task or its metric is missing, the value is not a number, or the metric is unbounded.

    Args:
        scores: Task to (metric to value), as from `task_scores`.
        primary: Task to the name of its primary metric, a key of `METRICS`.
    """
    mapped: list[float] = []
    raw: list[float] = []
    for task, name in primary.items():
        value = scores.get(task, {}).get(name)
        if value is None or not math.isfinite(value) or not METRICS[name].bounded:
            return None, None
        raw.append(value)
        mapped.append((value + 1) / 2 if METRICS[name].is_correlation else value)
    if not raw:
        return None, None
    return math.fsum(mapped) / len(mapped), math.fsum(raw) / len(raw)


def majority_baseline(kind: Kind, train_targets: ArrayLike, dev_targets: ArrayLike) -> Array:
    """What a model that reads no text predicts for each dev example: (E,).

    The most frequent training class (the first of several), or the mean of the training targets.
    """
    train = np.asarray(train_targets)
    if not len(train):
        raise ValueError("a baseline needs at least one training target")
    constant = np.argmax(np.bincount(train)) if kind == "classification" else np.mean(train, dtype=np.float64)
    return np.full(len(np.asarray(dev_targets)), constant)


def constant_predictions(predictions: ArrayLike) -> bool:
    """Whether all predictions are equal, so that correlations with them are 0 by definition."""
    column = np.asarray(predictions)
    return bool((column == column[:1]).all())


def constant_sides(predictions: ArrayLike, targets: ArrayLike) -> tuple[str, ...]:
    """Of "predictions" and "targets" those that are all equal, either of which makes correlations 0 by definition."""
    sides = {"predictions": predictions, "targets": targets}
    return tuple(name for name, column in sides.items() if constant_predictions(column))


def _columns(predictions: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    predicted, actual = np.asarray(predictions), np.asarray(targets)
    if predicted.ndim != 1 or predicted.shape != actual.shape or not len(actual):
        raise ValueError(
            f"predictions {predicted.shape} and targets {actual.shape} must be columns of one length, at least 1"
        )
    return predicted, actual


def _class_columns(predictions: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    predicted, actual = _columns(predictions, targets)
    for column in (predicted, actual):
        if column.dtype.kind not in "iu" or column.min() < 0:
            raise ValueError(f"classes must be integers from 0, found {column.dtype} down to {column.min()}")
    return predicted.astype(np.int64), actual.astype(np.int64)


def _number_columns(predictions: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    predicted, actual = _columns(predictions, targets)
    return predicted.astype(np.float64), actual.astype(np.float64)


def _class_counts(predictions: ArrayLike, targets: ArrayLike) -> tuple[Array, Array, Array]:
    """How often each class is predicted rightly, is predicted, and is the target: (C,) each, C as far as they occur."""
    predicted, actual = _class_columns(predictions, targets)
    size = int(max(predicted.max(), actual.max())) + 1
    columns = (actual[predicted == actual], predicted, actual)
    hits, chosen, occurring = (np.bincount(column, minlength=size) for column in columns)
    return hits, chosen, occurring


def _correlation(x: Array, y: Array) -> float:
    if constant_predictions(x) or constant_predictions(y):
        return 0.0
    return float(np.clip(_unit(x) @ _unit(y), -1, 1))


def _unit(x: Array) -> Array:
    """``x`` around its mean, at length 1.

    Divided by its largest value first, so that no square over- or underflows, and centred once more, which takes out
    what the mean of large and close values lost in rounding.
    """
    centred = x - x.mean()
    centred = centred / np.abs(centred).max()
    centred = centred - centred.mean()
    return centred / np.linalg.norm(centred)


def _ranks(x: Array) -> Array:
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _round_half_up(x: Array) -> Array:
    """Exact where ``floor(x + 0.5)`` is not: the largest number below one half stays 0."""
    whole = np.floor(x)
    with np.errstate(invalid="ignore"):
        return whole + (x - whole >= 0.5)
