"""Tests of one model against another on the same examples, p-values two-sided; and Holm's correction of several."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, t

_EQUAL = 1e-12


def permutation_p(value: float, draws: NDArray[np.float64]) -> float:
    """Share of the differences (R,) of models that change places at random that are as large as the one seen.

    The one seen counts among them, so that the test holds its level (Phipson & Smyth 2010).
    """
    return float((1 + np.sum(np.abs(draws) >= abs(value) - _EQUAL)) / (1 + len(draws)))


def mcnemar_p(only_first: int, only_second: int) -> float:
    """McNemar's test with the mid-p value (Fagerland, Lydersen & Laake 2013).

    Args:
        only_first: Examples that the first model alone predicts rightly.
        only_second: Those of the second alone.
    """
    total = only_first + only_second
    if only_first == only_second:
        return 1.0
    fewer = min(only_first, only_second)
    return float(2 * binom.cdf(fewer, total, 0.5) - binom.pmf(fewer, total, 0.5))


def williams_p(first: float, second: float, between: float, n: int) -> float:
    """Williams' test of two correlations that share a variable, as Steiger (1980, equation 7) recommends it.

    Args:
        first: Correlation of the first model's predictions with the targets.
        second: That of the second's.
        between: Correlation of the two models' predictions.
        n: Number of examples, at least 4.
    """
    determinant = max(0.0, 1 - first**2 - second**2 - between**2 + 2 * first * second * between)
    mean = (first + second) / 2
    size = 2 * (n - 1) / (n - 3) * determinant + mean**2 * (1 - between) ** 3
    if size <= 0:
        return 1.0
    statistic = (second - first) * math.sqrt((n - 1) * (1 + between) / size)
    return float(2 * t.sf(abs(statistic), n - 3))


def pseudo_values_p(differences: NDArray[np.float64]) -> float:
    """The t test of a score's jackknife: of two models' differences in pseudo-values (E,), E at least 2.

    For Spearman's correlation, of which Williams' test on ranks finds differences too often.
    """
    spread = float(np.std(differences, ddof=1))
    if spread <= _EQUAL:
        return 1.0
    statistic = float(np.mean(differences)) * math.sqrt(len(differences)) / spread
    return float(2 * t.sf(abs(statistic), len(differences) - 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted for their number (Holm 1979): each is below a level where Holm's procedure rejects at it."""
    adjusted: dict[str, float] = {}
    least = 0.0
    ascending: Sequence[str] = sorted(p_values, key=lambda name: p_values[name])
    for place, name in enumerate(ascending):
        least = max(least, min(1.0, (len(ascending) - place) * p_values[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}
