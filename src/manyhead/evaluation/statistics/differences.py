"""The difference between two sides on one task, or over tasks: its interval, tests, and what it would take to tell.

`ModelPair` is one run a side and speaks of these two models. `RecipePair` is several runs, and speaks of the recipes.
Both add up over tasks, whose examples are independent samples. A positive difference means that the other is better.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from manyhead.evaluation.metrics import METRICS, constant_sides, exact_matches
from manyhead.evaluation.scored import Scored
from manyhead.evaluation.statistics.intervals import (
    FEWEST,
    PROPORTIONS,
    Interval,
    Resampled,
    bootstrap_interval,
    combined,
    generator_of,
    mapping,
    resampled_score,
)
from manyhead.evaluation.statistics.pairs import mcnemar_p, permutation_p, pseudo_values_p, williams_p
from manyhead.evaluation.statistics.runs import ExampleVariance, example_variance, run_difference, without_rounding
from manyhead.evaluation.statistics.samples import Sample, sample_of

Array = NDArray[Any]

POWER = 0.8
_FEWEST_DISCORDANT = 10
"""Examples that one model alone predicts rightly, below which the bootstrap says too little of accuracies."""


@dataclass(frozen=True)
class Difference:
    """A difference and what is known of it.

    Attributes:
        interval: Its value and interval.
        p_values: By test; the first decides. Empty where nothing can be tested.
        detectable: The smallest difference that would have been found with 80 % power, by a p-value that is corrected
            for the number of tests (as if this one were the smallest, so no less than Holm's asks).
        examples_needed: Examples with which a difference of this size would be found with 80 % power, as many runs
            as there are; None where no number is enough, or the difference is 0.
        runs_needed: The same of runs a side, with these examples; None for single runs, too.
    """

    interval: Interval
    p_values: Mapping[str, float] = field(default_factory=dict[str, float])
    detectable: float | None = None
    examples_needed: int | None = None
    runs_needed: int | None = None


@dataclass(frozen=True)
class ModelPair:
    """Two models on the same examples; all values are of the other less the baseline, positive where it is better.

    Attributes:
        value: The difference.
        n: Number of examples.
        null: (R,) differences when the models change places at random.
        bootstrap: The difference resampled; None where that would say nothing.
        reason: Why.
        p_values: Of the tests beside the permutation's.
    """

    value: float
    n: int
    null: Array
    bootstrap: Resampled | None
    reason: str | None
    p_values: Mapping[str, float]

    def difference(self, level: float, tests: int = 1) -> Difference:
        """What is known of the difference, which is one of so many ``tests``."""
        p_values = {"permutation": permutation_p(self.value, self.null), **self.p_values}
        if self.bootstrap is None or self.bootstrap.square <= 0:
            reason = self.reason or "the two score the same whichever examples are drawn"
            return Difference(Interval(self.value, None, None, level, self.n, "none", reason), p_values)
        reach = float(norm.ppf((1 + strict_level(level, tests)) / 2) + norm.ppf(POWER))
        detectable = reach * math.sqrt(self.bootstrap.square)
        return Difference(
            bootstrap_interval(self.bootstrap, level, self.n),
            p_values,
            detectable,
            examples_needed=_times(self.n, (detectable / self.value) ** 2) if self.value else None,
        )


@dataclass(frozen=True)
class RecipePair:
    """Recipes by several runs each: the scores of the runs, and what the examples add to the difference's variance."""

    scores: tuple[Array, Array]
    variance: ExampleVariance
    n: int

    def difference(self, level: float, tests: int = 1) -> Difference:
        """What is known of the difference, which is one of so many ``tests``."""
        found = run_difference(self.scores, self.variance)
        if found.variance <= 0:
            reason = "the runs score the same whichever examples are drawn"
            return Difference(Interval(found.value, None, None, level, self.n, "none", reason))
        strict = strict_level(level, tests)
        factor = found.examples_factor(strict) if found.value else None
        return Difference(
            Interval(found.value, *found.ends(level), level, self.n, "t"),
            {"t": found.p},
            found.detectable(strict),
            examples_needed=None if factor is None else _times(self.n, factor),
            runs_needed=found.runs_needed(strict) if found.value else None,
        )


def model_pair(baseline: Scored, other: Scored, *, resamples: int, seed: int) -> ModelPair:
    """Compares two models by the task's own metric, on predictions that are finite."""
    metric = baseline.metric
    sign = sign_of(metric)
    sample, generator = sample_of([baseline, other]), generator_of(seed, baseline.task)
    value = without_rounding(sign * float(sample.scores[1] - sample.scores[0]))
    swapped = sample.swapped(generator, resamples)
    reason = _why_no_bootstrap(baseline, other)
    bootstrap = None if reason else resampled_score(sample, generator, resamples).scaled(sign)
    null = sign * (swapped[:, 1] - swapped[:, 0])
    return ModelPair(value, sample.n, null, bootstrap, reason, _other_tests(baseline, other, sample))


def recipe_pair(baseline: Sequence[Scored], other: Sequence[Scored]) -> RecipePair:
    """Compares recipes by the task's own metric, on predictions that are finite, of at least `FEWEST` examples."""
    sample = sample_of([*baseline, *other])
    sign, count = sign_of(baseline[0].metric), len(baseline)
    scores, pseudo = sign * sample.scores, sign * sample.pseudo_values()
    variance = example_variance((pseudo[:, :count], pseudo[:, count:]), sample.counts)
    return RecipePair((scores[:count], scores[count:]), variance, sample.n)


def overall_of_models(pairs: Mapping[str, ModelPair], metrics: Mapping[str, str]) -> ModelPair:
    """The difference of ``overall``, from those of the tasks."""
    factors = {task: mapping(metrics[task])[0] for task in pairs}
    parts = [pair.bootstrap.scaled(factors[task]) for task, pair in pairs.items() if pair.bootstrap is not None]
    reasons = [f"{task}: {pair.reason}" for task, pair in pairs.items() if pair.reason]
    return ModelPair(
        math.fsum(factors[task] * pair.value for task, pair in pairs.items()) / len(pairs),
        sum(pair.n for pair in pairs.values()),
        np.mean([factors[task] * pair.null for task, pair in pairs.items()], axis=0),
        combined(parts) if len(parts) == len(pairs) else None,
        "; ".join(reasons) or None,
        {},
    )


def overall_of_recipes(pairs: Mapping[str, RecipePair], metrics: Mapping[str, str]) -> RecipePair:
    """The difference of ``overall``; a run has all tasks, so its scores vary together with its seed."""
    factors = {task: mapping(metrics[task])[0] for task in pairs}
    first, second = (
        np.mean([factors[task] * pair.scores[side] for task, pair in pairs.items()], axis=0) for side in (0, 1)
    )
    variances = [pair.variance.scaled(factors[task] / len(pairs)) for task, pair in pairs.items()]
    summed = ExampleVariance(
        math.fsum(each.examples for each in variances), math.fsum(each.interaction for each in variances)
    )
    return RecipePair((first, second), summed, sum(pair.n for pair in pairs.values()))


def effects_of(metric: str, baseline: float, other: float) -> dict[str, float | None]:
    """Effect sizes of scores: Cohen's h of proportions, Cohen's q of correlations."""
    if metric in PROPORTIONS:
        first, second = (2 * math.asin(math.sqrt(min(max(score, 0.0), 1.0))) for score in (baseline, other))
        return {"cohen_h": second - first}
    if metric in ("pearson", "spearman"):
        inside = max(abs(baseline), abs(other)) < 1
        return {"cohen_q": math.atanh(other) - math.atanh(baseline) if inside else None}
    return {}


def discordant(baseline: Scored, other: Scored) -> tuple[int, int]:
    """Examples that the baseline alone, and the other alone, predicts rightly: classes, or scores to the integer."""
    first, second = _right(baseline), _right(other)
    return int(np.sum(first & ~second)), int(np.sum(second & ~first))


def strict_level(level: float, tests: int) -> float:
    """The level of one of several ``tests`` that are wrong together no more often than one at ``level``."""
    return 1 - (1 - level) / tests


def sign_of(metric: str) -> int:
    """1 where more is better, -1 where less is."""
    return 1 if METRICS[metric].higher_is_better else -1


def _other_tests(baseline: Scored, other: Scored, sample: Sample) -> dict[str, float]:
    if baseline.metric in PROPORTIONS:
        return {"mcnemar": mcnemar_p(*discordant(baseline, other))}
    if baseline.metric not in ("pearson", "spearman") or sample.n < FEWEST:
        return {}
    if constant_sides(baseline.values, baseline.targets) or constant_sides(other.values, other.targets):
        return {}
    if baseline.metric == "spearman":
        return {"jackknife": pseudo_values_p(np.diff(sample.pseudo_values()).ravel())}
    between = sample_of([Scored("", "regression", "pearson", baseline.ids, baseline.values, other.values)])
    first, second = sample.scores.tolist()
    return {"williams": williams_p(first, second, float(between.scores[0]), sample.n)}


def _why_no_bootstrap(baseline: Scored, other: Scored) -> str | None:
    if baseline.n < FEWEST:
        return f"{baseline.n} example{'s' if baseline.n > 1 else ''} tell too little; at least {FEWEST} are needed"
    if np.array_equal(baseline.values, other.values):
        return "the two predict the same for every example"
    if baseline.metric in PROPORTIONS and (either := sum(discordant(baseline, other))) < _FEWEST_DISCORDANT:
        return f"only {either} of {baseline.n:,} examples are predicted rightly by one of the two alone"
    return None


def _right(scored: Scored) -> Array:
    if scored.kind == "classification":
        return scored.values == scored.targets
    return exact_matches(scored.values, scored.targets, *(() if scored.range is None else (scored.range,)))


def _times(n: int, factor: float) -> int:
    return math.ceil(n * factor)
