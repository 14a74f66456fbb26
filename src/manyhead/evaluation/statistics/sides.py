"""The interval of one side's score: of a model, or of a recipe by several runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from manyhead.evaluation.metrics import METRICS
from manyhead.evaluation.scored import Scored
from manyhead.evaluation.statistics.intervals import FEWEST, Interval, mapping, overall_intervals, score_interval
from manyhead.evaluation.statistics.runs import ExampleVariance, example_variance, run_difference
from manyhead.evaluation.statistics.samples import sample_of

Run = Mapping[str, Scored]
"""Predictions of one run, by task."""

_FEWEST_RUNS = 3
"""Two runs leave one degree of freedom: an interval 13 standard errors wide to either side."""


def side_interval(runs: Sequence[Scored], scores: Sequence[float], options: Mapping[str, Any]) -> Interval:
    """Of a model's score, or of the mean score of a recipe's runs over seeds and examples."""
    if len(runs) == 1:
        return score_interval(runs[0], **options)
    first, mean, level = runs[0], float(np.mean(scores)), options["level"]
    if not math.isfinite(mean) or first.n < FEWEST:
        reason = f"{first.n} examples tell too little" if math.isfinite(mean) else "it is not a finite number"
        return Interval(mean, None, None, level, first.n, "none", reason)
    sample = sample_of(runs)
    variance = example_variance([sample.pseudo_values()], sample.counts)
    return _t_interval(scores, variance, level, first.n, _bounds(first.metric))


def overall_interval(runs: Sequence[Run], scores: Sequence[float], options: Mapping[str, Any]) -> Interval:
    """The same of ``overall``."""
    if len(runs) == 1:
        found, _ = overall_intervals(runs[0], **options)
        assert found is not None
        return found
    parts: list[ExampleVariance] = []
    for task, scored in runs[0].items():
        sample = sample_of([run[task] for run in runs])
        variance = example_variance([sample.pseudo_values()], sample.counts)
        parts.append(variance.scaled(mapping(scored.metric)[0] / len(runs[0])))
    summed = ExampleVariance(math.fsum(each.examples for each in parts), math.fsum(each.interaction for each in parts))
    return _t_interval(scores, summed, options["level"], sum(each.n for each in runs[0].values()), (0.0, 1.0))


def _t_interval(
    scores: Sequence[float], variance: ExampleVariance, level: float, n: int, bounds: tuple[float, float]
) -> Interval:
    """No wider than ``bounds``, between which all scores are."""
    if len(scores) < _FEWEST_RUNS:
        reason = f"{len(scores)} runs tell too little of what seeds do; {_FEWEST_RUNS} are needed"
        return Interval(float(np.mean(scores)), None, None, level, n, "none", reason)
    found = run_difference([np.asarray(scores)], variance)
    if found.variance <= 0:
        return Interval(found.value, None, None, level, n, "none", "it is the same whichever examples are drawn")
    low, high = found.ends(level)
    return Interval(found.value, max(low, bounds[0]), min(high, bounds[1]), level, n, "t")


def _bounds(metric: str) -> tuple[float, float]:
    """The least and the largest value of a metric."""
    signed = METRICS[metric].is_correlation or metric == "mcc"
    return (-1.0 if signed else 0.0, 1.0 if METRICS[metric].bounded else math.inf)
