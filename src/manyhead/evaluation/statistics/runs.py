"""Differences between recipes, of each of which several runs with other seeds were made.

A difference of recipes is uncertain because of the examples and because of the seeds. Both are crossed: all runs
predict the same examples. So they are random effects of a two-way table (runs x examples) of pseudo-values, as readers
and cases are in multi-reader multi-case studies (Dorfman, Berbaum & Metz 1992; Obuchowski 1995; runs are nested in
recipes: Hillis 2014).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

Array = NDArray[Any]

_POWER = 0.8
_ROUNDING = 1e-12
_MOST_RUNS = 1_000
_FACTORS = (1e-3, 1e6, 9_001)
"""Numbers of examples that are tried, as multiples: from, to, and how many, each 0.23 % more than the one before."""


@dataclass(frozen=True)
class ExampleVariance:
    """Of a difference: what the examples add, and what the interaction of runs and examples does.

    The interaction is in the first, too: it is why runs differ on single examples. Of independent samples each adds up.
    """

    examples: float
    interaction: float

    def scaled(self, factor: float) -> "ExampleVariance":
        """Of the difference times ``factor``."""
        return ExampleVariance(factor**2 * self.examples, factor**2 * self.interaction)


@dataclass(frozen=True)
class RunDifference:
    """A difference of means over runs, or a mean over the runs of one recipe, with its variance and a t distribution.

    Attributes:
        value: The difference.
        variance: examples + interaction + seeds, estimated as the seeds' mean square, which has the interaction in it,
            plus what the examples add beside it, if that is positive (Hillis 2007).
        freedom: Degrees of freedom, infinite where the seeds make no difference.
        examples: Part of the variance that falls with the number of examples alone.
        interaction: Part that falls with the examples and with the runs.
        seeds: Part that falls with the runs alone.
        runs: Runs of each recipe.
    """

    value: float
    variance: float
    freedom: float
    examples: float
    interaction: float
    seeds: float
    runs: tuple[int, ...]

    @property
    def p(self) -> float:
        """Two-sided, of no difference."""
        if self.variance <= 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * t.sf(abs(self.value) / math.sqrt(self.variance), self.freedom))

    def ends(self, level: float) -> tuple[float, float]:
        """The t interval."""
        half = float(t.ppf((1 + level) / 2, self.freedom)) * math.sqrt(self.variance)
        return self.value - half, self.value + half

    def detectable(self, level: float) -> float:
        """The smallest difference that is found with 80 % power."""
        return _reach(self.freedom, level) * math.sqrt(self.variance)

    def examples_factor(self, level: float) -> float | None:
        """How many times the examples would show this difference with 80 % power; None if none with these runs."""
        factors = np.geomspace(*_FACTORS)
        by_seeds = self.seeds + self.interaction / factors
        variance = self.examples / factors + by_seeds
        if self.seeds + self.interaction > 0:
            freedom = _freedom(sum(each - 1 for each in self.runs), variance, by_seeds)
        else:
            freedom = np.full_like(factors, math.inf)
        enough = abs(self.value) >= _reach(freedom, level) * np.sqrt(variance)
        return float(factors[enough.argmax()]) if enough.any() else None

    def runs_needed(self, level: float) -> int | None:
        """How many runs a recipe would show this difference with 80 % power; None if none with these examples."""
        mean = len(self.runs) / sum(1 / runs for runs in self.runs)
        runs = np.arange(2, _MOST_RUNS + 1)
        by_runs = (self.seeds + self.interaction) * mean / runs
        variance = self.examples + by_runs
        freedom = _freedom(len(self.runs) * (runs - 1), variance, np.maximum(by_runs, 1e-100))
        enough = abs(self.value) >= _reach(freedom, level) * np.sqrt(variance)
        return int(runs[enough.argmax()]) if enough.any() else None


def without_rounding(difference: float) -> float:
    """A difference of scores, 0 where there is none but for the rounding of sums."""
    return difference if abs(difference) > _ROUNDING else 0.0


def example_variance(sides: Sequence[Array], counts: Array) -> ExampleVariance:
    """From pseudo-values (U, I) of the I runs of each recipe; ``counts`` (U,) examples are alike.

    One recipe, or two to be compared. A recipe of one run shows no interaction: it is taken to be the other's.
    """
    n = counts.sum()
    means = [side.mean(axis=1) for side in sides]
    difference = means[-1] - means[0] if len(sides) > 1 else means[0]
    squares = [_interaction(side, counts) for side in sides if side.shape[1] > 1]
    freedom = [side.shape[1] - 1 for side in sides if side.shape[1] > 1]
    pooled = float(np.average(squares, weights=freedom)) if squares else 0.0
    interaction = pooled * sum(1 / side.shape[1] for side in sides) / n
    return ExampleVariance(float(counts @ _centred(difference, counts) ** 2 / (n - 1) / n), interaction)


def run_difference(scores: Sequence[Array], from_examples: ExampleVariance) -> RunDifference:
    """From the scores (I,) of each recipe's runs; at least one recipe has two."""
    means = [float(np.mean(each)) for each in scores]
    runs = tuple(len(each) for each in scores)
    freedom = sum(each - 1 for each in runs)
    pooled = sum(float(np.var(each, ddof=1)) * (len(each) - 1) for each in scores if len(each) > 1) / freedom
    seeds = pooled * sum(1 / each for each in runs)
    # Runs that score exactly the same, as few examples let them, show nothing of the interaction either.
    seeds = seeds if seeds > _ROUNDING**2 else 0.0
    interaction = min(from_examples.interaction, seeds)
    beside = max(from_examples.examples - (from_examples.interaction if seeds else 0.0), 0.0)
    variance = seeds + beside
    return RunDifference(
        value=without_rounding(means[-1] - means[0]) if len(means) > 1 else means[0],
        variance=variance,
        freedom=float(_freedom(freedom, variance, seeds)) if seeds > 0 else math.inf,
        examples=beside,
        interaction=interaction,
        seeds=seeds - interaction,
        runs=runs,
    )


def _interaction(values: Array, counts: Array) -> float:
    """Mean square of what is left of pseudo-values (U, I) without the means of examples and of runs."""
    rest = values - values.mean(axis=1, keepdims=True)
    rest = rest - counts @ rest / counts.sum()
    return float(counts @ (rest**2).sum(axis=1) / ((values.shape[1] - 1) * (counts.sum() - 1)))


def _centred(values: Array, counts: Array) -> Array:
    return values - counts @ values / counts.sum()


def _freedom(freedom: Any, variance: Any, seeds: Any) -> Any:
    """Degrees of freedom of ``variance``, of which the part ``seeds`` has ``freedom`` and the rest has very many.

    Satterthwaite's squares the ratio. With fewer than four for the seeds that finds too many differences: then the
    ratio itself, and none with one.
    """
    return freedom * np.minimum(variance / seeds, 1e6) ** np.minimum(freedom // 2, 2)


def _reach(freedom: Any, level: float) -> Any:
    """Standard errors that a difference must have to be found at ``level`` with 80 % power."""
    found = t.ppf((1 + level) / 2, freedom) + t.ppf(_POWER, freedom)
    return np.where(np.isinf(freedom), norm.ppf((1 + level) / 2) + norm.ppf(_POWER), found)[()]
