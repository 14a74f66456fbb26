"""Bootstrap intervals of scores: bias-corrected and accelerated (BCa; Efron 1987)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest

from manyhead.evaluation.metrics import METRICS, constant_sides, overall
from manyhead.evaluation.scored import Scored
from manyhead.evaluation.statistics.samples import Sample, sample_of

Array = NDArray[Any]

RESAMPLES = 10_000
LEVEL = 0.95
PROPORTIONS = ("accuracy", "exact_match")
FEWEST = 20
"""Fewer examples, resampled, say too little of those that were not seen. Proportions have an exact interval."""
_FEWEST_OF_EACH = 10
"""Rightly and wrongly predicted examples below which the bootstrap's interval of a proportion is too short."""
_EQUAL = 1e-12


@dataclass(frozen=True)
class Interval:
    """A value, and the interval that holds the true one at a confidence of ``level``.

    Attributes:
        value: The score, or the difference, of the ``n`` examples.
        low: Lower end, None where there is no interval that says something.
        high: Upper end, or None.
        level: Confidence, 0.95 for 95 %.
        n: Number of examples.
        method: "bootstrap" (BCa), "exact" (Clopper and Pearson), "t", or "none".
        reason: Why there is no interval.
    """

    value: float
    low: float | None
    high: float | None
    level: float
    n: int
    method: str
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Resampled:
    """A statistic, what it is in R resamples, and what single examples do to it.

    Statistics of independent samples add up: see `combined`.

    Attributes:
        value: Of the sample itself.
        draws: (R,) of the resamples.
        square: Sum over the examples of the squares of their influence, the jackknife's variance.
        cube: The same of cubes, which tells the skewness.
    """

    value: float
    draws: Array
    square: float
    cube: float

    def scaled(self, factor: float, shift: float = 0.0) -> "Resampled":
        """The statistic times ``factor``, plus ``shift``."""
        changed = factor * self.draws + shift
        return Resampled(factor * self.value + shift, changed, factor**2 * self.square, factor**3 * self.cube)

    def interval(self, level: float) -> tuple[float, float]:
        """Ends of the BCa interval."""
        return bca_ends(self.draws, self.value, self.cube / (6 * self.square**1.5), level)


def score_interval(
    scored: Scored,
    metric: str | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The interval of a score over samples of as many examples of the same kind; the model stays as it is.

    Args:
        scored: Predictions beside targets.
        metric: A key of `METRICS` that fits the task; the task's own where left out.
        resamples: Number of bootstrap samples.
        level: Confidence.
        seed: With the task's name it decides the resamples.
    """
    name = metric or scored.metric
    value = score_of(scored, name)
    reason = why_none(scored, name, value)
    if reason is not None:
        return Interval(value, None, None, level, scored.n, "none", reason)
    if name in PROPORTIONS:
        right = round(value * scored.n)
        if min(right, scored.n - right) < _FEWEST_OF_EACH:
            exact = binomtest(right, scored.n).proportion_ci(level, method="exact")
            return Interval(value, float(exact.low), float(exact.high), level, scored.n, "exact")
    found = resampled_score(sample_of([scored], name), generator_of(seed, scored.task), resamples)
    return replace(bootstrap_interval(found, level, scored.n), value=value)


def overall_intervals(
    scored: Mapping[str, Scored],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[Interval | None, Interval | None]:
    """Intervals of ``overall`` and ``overall_raw``: each task's examples, being another sample, are drawn apart.

    None where the tasks have no such mean; see `manyhead.evaluation.metrics.overall`.
    """
    primary = {name: each.metric for name, each in scored.items()}
    values = overall({name: {each.metric: score_of(each)} for name, each in scored.items()}, primary)
    if None in values:
        return None, None
    n = sum(each.n for each in scored.values())
    reasons = [f"{name}: {reason}" for name, each in scored.items() if (reason := why_none_resampled(each)) is not None]
    if reasons:
        found = [Interval(value or 0.0, None, None, level, n, "none", "; ".join(reasons)) for value in values]
        return found[0], found[1]
    parts = {
        name: resampled_score(sample_of([each]), generator_of(seed, each.task), resamples)
        for name, each in scored.items()
    }
    mapped = combined([parts[name].scaled(*mapping(metric)) for name, metric in primary.items()])
    return bootstrap_interval(mapped, level, n), bootstrap_interval(combined(list(parts.values())), level, n)


def intervals_of(scored: Mapping[str, Scored], *, means: bool) -> dict[str, Interval]:
    """Of each task's own metric and, with ``means``, of ``overall`` and ``overall_raw`` where there are such."""
    found = {name: score_interval(each) for name, each in scored.items()}
    if means and scored:
        over_tasks = zip(("overall", "overall_raw"), overall_intervals(scored), strict=True)
        found |= {name: each for name, each in over_tasks if each is not None}
    return found


def score_of(scored: Scored, metric: str | None = None) -> float:
    """A score; not a number where predictions are not."""
    found = METRICS[metric or scored.metric]
    extra = (scored.range,) if found.takes_range and scored.range is not None else ()
    return found.function(scored.values, scored.targets, *extra)


def mapping(metric: str) -> tuple[float, float]:
    """Factor and shift that ``overall`` applies to a metric."""
    return (0.5, 0.5) if METRICS[metric].is_correlation else (1.0, 0.0)


def combined(parts: Sequence[Resampled]) -> Resampled:
    """The mean of statistics of independent samples."""
    share = 1 / len(parts)
    return Resampled(
        math.fsum(part.value for part in parts) * share,
        np.sum([part.draws for part in parts], axis=0) * share,
        math.fsum(part.square for part in parts) * share**2,
        math.fsum(part.cube for part in parts) * share**3,
    )


def resampled_score(sample: Sample, generator: np.random.Generator, resamples: int) -> Resampled:
    """The score of a sample's only model, or the second model's less the first's."""
    draws, pseudo, scores = sample.resampled(generator, resamples), sample.pseudo_values(), sample.scores
    if len(scores) == 2:
        draws, pseudo, scores = draws[:, 1] - draws[:, 0], pseudo[:, 1] - pseudo[:, 0], scores[1:] - scores[:1]
    influence = pseudo.ravel() - sample.counts @ pseudo.ravel() / sample.n
    influence /= math.sqrt(sample.n * (sample.n - 1))
    square, cube = sample.counts @ influence**2, sample.counts @ influence**3
    return Resampled(float(scores[0]), draws.ravel(), float(square), float(cube))


def bootstrap_interval(found: Resampled, level: float, n: int) -> Interval:
    """The BCa interval, or none where the statistic is the same in all resamples."""
    if found.square <= _EQUAL**2 or np.ptp(found.draws) <= _EQUAL:
        return Interval(found.value, None, None, level, n, "none", "it is the same in every resample")
    return Interval(found.value, *found.interval(level), level, n, "bootstrap")


def bca_ends(draws: Array, value: float, acceleration: float, level: float) -> tuple[float, float]:
    """The BCa interval from ``draws`` (R,); resamples equal to the value count by half."""
    below = np.mean(draws < value - _EQUAL) + np.mean(np.abs(draws - value) <= _EQUAL) / 2
    bias = ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    z = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
    # Of R draws the k-th has k / (R + 1) of all below it, on average: the right share for few draws, too.
    low, high = np.quantile(draws, ndtr(bias + z / (1 - acceleration * z)), method="weibull")
    return float(low), float(high)


def generator_of(seed: int, task: str) -> np.random.Generator:
    """A task's own generator: what is drawn for it does not depend on the other tasks."""
    return np.random.default_rng([seed, crc32(task.encode("utf-8", "surrogatepass"))])


def why_none(scored: Scored, metric: str, value: float) -> str | None:
    """Why the score has no interval, in words."""
    if not math.isfinite(value):
        return "it is not a finite number, because predictions are not"
    if metric in PROPORTIONS:
        return None
    if scored.n < FEWEST:
        examples = f"{scored.n} example{'s' if scored.n > 1 else ''}"
        return f"{examples} tell too little of {metric}; at least {FEWEST} are needed"
    sides = constant_sides(scored.values, scored.targets)
    if METRICS[metric].is_correlation and sides:
        return f"all {' and all '.join(sides)} are alike, so it is 0 by definition"
    return None


def why_none_resampled(scored: Scored) -> str | None:
    """Why resampling a task's own score says nothing; proportions, too, need enough examples."""
    if scored.n < FEWEST:
        return f"{scored.n} example{'s' if scored.n > 1 else ''}; at least {FEWEST} are needed"
    return why_none(scored, scored.metric, score_of(scored))
