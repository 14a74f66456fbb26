"""Scores from sums over examples; any leading axes (...) are kept. K sums, S models, C classes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_NO_SPREAD = 1e-12


def class_scores(metric: str, n_classes: int) -> Callable[[Array], Array]:
    """The function from counts to scores (..., S).

    Counts are (..., C (1 + 2 S)): of each class as a target, then for each model how often it is rightly predicted
    and how often it is predicted.
    """
    score = _CLASS_SCORES[metric]

    def scores(sums: Array) -> Array:
        counts = sums.reshape(*sums.shape[:-1], -1, n_classes)
        return score(counts[..., 1::2, :], counts[..., 2::2, :], counts[..., :1, :])

    return scores


def correlations(sums: Array) -> Array:
    """Pearson's r (..., S) from n, sums of y and y^2, then of x, x^2 and x y of each model; 0 without spread."""
    n, y, yy = (sums[..., place, None] for place in range(3))
    x, xx, xy = (sums[..., place::3] for place in (3, 4, 5))
    spread_x, spread_y = xx / n - (x / n) ** 2, yy / n - (y / n) ** 2
    usable = (spread_x > _NO_SPREAD) & (spread_y > _NO_SPREAD)
    size = np.sqrt(np.where(usable, spread_x * spread_y, 1.0))
    return np.where(usable, np.clip((xy / n - x * y / n**2) / size, -1, 1), 0.0)


def means(sums: Array) -> Array:
    """Means (..., S) from n and a sum for each model."""
    return sums[..., 1:] / sums[..., :1]


def _accuracy(hits: Array, _predicted: Array, actual: Array) -> Array:
    return hits.sum(axis=-1) / actual.sum(axis=-1)


def _macro_f1(hits: Array, predicted: Array, actual: Array) -> Array:
    size = predicted + actual
    occurs = size > 0
    return (2 * hits / np.where(occurs, size, 1)).sum(axis=-1) / occurs.sum(axis=-1)


def _f1(hits: Array, predicted: Array, actual: Array) -> Array:
    size = (predicted + actual)[..., 1]
    return 2 * hits[..., 1] / np.where(size > 0, size, 1)


def _mcc(hits: Array, predicted: Array, actual: Array) -> Array:
    n = actual.sum(axis=-1)
    spread = (n**2 - (predicted**2).sum(axis=-1)) * (n**2 - (actual**2).sum(axis=-1))
    spread = np.where(spread > 0, spread, np.inf)
    return (hits.sum(axis=-1) * n - (predicted * actual).sum(axis=-1)) / np.sqrt(spread)


_CLASS_SCORES: dict[str, Callable[[Array, Array, Array], Array]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "f1": _f1,
    "mcc": _mcc,
}
