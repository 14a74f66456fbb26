"""Whether affinity measured before training told what training together did: predicted against measured gains."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial
from typing import Any

import numpy as np

from manyhead.errors import UsageError
from manyhead.evaluation.metrics import spearman
from manyhead.studies.affinity.affinity import Affinity
from manyhead.studies.affinity.estimates import Array, as_number, bounds, cosine_sides
from manyhead.studies.affinity.gains import Gain, Gains

SIGNIFICANT = 0.05
_RELABELINGS = 5040
"""Relabelings of the tasks that are tried: all of up to 7 tasks."""


@dataclass(frozen=True)
class Case:
    """A task and its partners: the predicted affinity, with the bounds of its interval, beside the measured gain."""

    gain: Gain
    predicted: float
    low: float
    high: float


@dataclass(frozen=True)
class Check:
    """Predictions beside measurements.

    Attributes:
        correlation: Spearman's rho of predicted affinity and measured gain over all cases; NaN where it has none.
        interval: Its 95 % interval, over resamples of the gradients' batches, the dev rows and the seeds.
        p_value: Share of all relabelings of the tasks whose affinities agree with the gains at least as well.
        within: Rho over the cases of each task alone.
        same_sign: Cases in which prediction and gain have the same sign, of ``signed``, those where neither is 0.
        decided_same: The same of ``decided``, those where both intervals leave out 0.
    """

    cases: Sequence[Case]
    correlation: float
    interval: tuple[float, float]
    p_value: float
    within: dict[str, float]
    same_sign: int
    signed: int
    decided_same: int
    decided: int
    differences: Sequence[str]

    @property
    def is_evidence(self) -> bool:
        """Whether the prediction is told from chance, and in the right direction."""
        return self.interval[0] > 0 and self.p_value <= SIGNIFICANT

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        cases = [
            {
                "task": case.gain.task,
                "partners": list(case.gain.partners),
                "predicted": case.predicted,
                "predicted_interval": [case.low, case.high],
                "metric": case.gain.metric,
                "alone": case.gain.alone,
                "together": case.gain.together,
                "gain": case.gain.value,
                "gain_interval": list(case.gain.interval),
                "seeds": case.gain.seeds,
            }
            for case in self.cases
        ]
        return {
            "cases": cases,
            "rank_correlation": as_number(self.correlation),
            "interval": [as_number(each) for each in self.interval],
            "p_value": as_number(self.p_value),
            "rank_correlation_within": {task: as_number(rho) for task, rho in self.within.items()},
            "same_sign": {"count": self.same_sign, "of": self.signed},
            "same_sign_decided": {"count": self.decided_same, "of": self.decided},
            "is_evidence": self.is_evidence,
            "differences": list(self.differences),
            "text": verdict(self),
        }


def check_prediction(affinity: Affinity, measured: Gains) -> Check:
    """Compares the affinity of tasks with what they gained from one another.

    The prediction for a task is its mean cosine with its partners (Fifty 2021). Raises `UsageError` where the runs
    trained tasks that the affinity is not of.
    """
    unknown = sorted({name for gain in measured.gains for name in (gain.task, *gain.partners)} - {*affinity.tasks})
    if unknown:
        raise UsageError(
            f"the runs trained {', '.join(unknown)}, and affinity was measured of {', '.join(affinity.tasks)}; "
            "expected the same tasks; name the recipe of the runs"
        )
    places = {name: place for place, name in enumerate(affinity.tasks)}
    found = affinity.estimates
    gains = list(measured.gains)
    pairs = [(places[gain.task], [places[each] for each in gain.partners]) for gain in gains]
    predicted = _predicted(found.cosines, pairs)
    low, high = bounds(*(_predicted(side, pairs) for side in cosine_sides(found.product_samples)))
    values = np.array([gain.value for gain in gains])
    cases = [Case(*each) for each in zip(gains, predicted.tolist(), low.tolist(), high.tolist(), strict=True)]
    correlation = rank_correlation(predicted, values)
    known = np.isfinite(predicted) & (predicted != 0) & (values != 0)
    same = np.sign(predicted) == np.sign(values)
    decided = [n for n, case in enumerate(cases) if _decided(case.low, case.high) and _decided(*case.gain.interval)]
    return Check(
        cases=cases,
        correlation=correlation,
        interval=_interval(_predicted(found.samples, pairs), np.stack([gain.samples for gain in gains], axis=1)),
        p_value=_p_value(found.cosines, pairs, values, correlation),
        within=dict(_within(gains, predicted, values)),
        same_sign=int((same & known).sum()),
        signed=int(known.sum()),
        decided_same=sum(bool(same[n]) for n in decided),
        decided=len(decided),
        differences=measured.differences,
    )


def rank_correlation(one: Array, other: Array) -> float:
    """Spearman's rho over the cases where both are known; NaN below 3 of them, or where one side is constant."""
    known = np.isfinite(one) & np.isfinite(other)
    one, other = one[known], other[known]
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return spearman(one, other)


def verdict(check: Check) -> list[str]:
    """What the comparison says, in sentences."""
    rho, (low, high) = check.correlation, check.interval
    figures = f"rank correlation {rho:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}, p = {check.p_value:.3f}"
    if not np.isfinite(rho):
        said = ["The prediction cannot be judged: there are too few cases, or all predictions or all gains are alike."]
    elif check.is_evidence:
        said = [
            f"The prediction is worth something here: tasks gained more from partners of higher affinity ({figures})."
        ]
    elif high < 0:
        said = [f"The prediction misleads here: higher affinity, lower gain ({figures})."]
    else:
        said = [f"There is no evidence here that the prediction is worth anything ({figures})."]
    said.append(
        f"Its sign was that of the gain in {check.same_sign} of {check.signed} cases; where both are told from 0, in "
        f"{check.decided_same} of {check.decided}."
    )
    if all(case.gain.seeds == 1 for case in check.cases):
        said.append("One seed: what another seed would change is not in the intervals.")
    if check.differences:
        said.append(f"The runs differ in more than their tasks and seeds: {', '.join(check.differences)}.")
    return said


def _predicted(cosines: Array, pairs: Sequence[tuple[int, Sequence[int]]]) -> Array:
    """Mean cosine (..., C) of each case's task with its partners."""
    return np.stack([cosines[..., task, partners].mean(-1) for task, partners in pairs], axis=-1)


def _interval(predicted: Array, gains: Array) -> tuple[float, float]:
    """95 % of the rank correlations of resampled predictions (R, C) and gains (R', C), as many as there are of both."""
    count = min(len(predicted), len(gains))
    found = np.array([rank_correlation(predicted[n], gains[n]) for n in range(count)])
    low, high = bounds(np.nan_to_num(found, nan=-1), np.nan_to_num(found, nan=1))
    return float(low), float(high)


def _p_value(cosines: Array, pairs: Sequence[tuple[int, Sequence[int]]], values: Array, correlation: float) -> float:
    """Of all ways to name the rows of ``cosines``, the share that correlates at least as well (Mantel 1967)."""
    if not np.isfinite(correlation):
        return float("nan")
    found = [
        rank_correlation(_predicted(cosines[np.ix_(order, order)], pairs), values)
        for order in _relabelings(len(cosines))
    ]
    return float(np.mean([not each < correlation - 1e-12 for each in found]))


def _relabelings(size: int) -> Iterator[list[int]]:
    """All orders of ``size`` tasks, as they are first; of more than 7 tasks, as many random ones."""
    if factorial(size) <= _RELABELINGS:
        yield from map(list, permutations(range(size)))
        return
    yield list(range(size))
    generator = np.random.default_rng(0)
    yield from (generator.permutation(size).tolist() for _ in range(_RELABELINGS - 1))


def _within(gains: Sequence[Gain], predicted: Array, values: Array) -> Iterator[tuple[str, float]]:
    for task in dict.fromkeys(gain.task for gain in gains):
        own = np.array([gain.task == task for gain in gains])
        yield task, rank_correlation(predicted[own], values[own])


def _decided(low: float, high: float) -> bool:
    return low > 0 or high < 0
