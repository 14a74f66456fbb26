"""Whether probabilities are what they say: reliability, proper scores, and a temperature that mends them.

A temperature T divides a task's logits; in terms of probabilities, p^(1/T) renormalised. It changes how sure a model
says it is, never which class it predicts (Guo et al. 2017).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from manyhead.evaluation.scored import Scored

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]

BINS = 15
"""Bins of equal width over confidence 0..1 that `expected_calibration_error` and `reliability` use."""
FEWEST_ROWS = 50
"""Rows that a temperature needs."""
LOWEST, HIGHEST = 0.01, 100.0
"""Temperatures that are looked at."""
_TINY = float(np.finfo(np.float64).eps)
"""Probabilities below it count as it: one row that was sure of the wrong class must not make a mean infinite."""
_SEED = 0xCA11B


@dataclass(frozen=True)
class ReliabilityBin:
    """The examples whose most probable class has a probability above ``low``, up to ``high``.

    ``confidence`` is the mean of that probability, ``accuracy`` the share that is right; None for an empty bin.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be trusted.

    Attributes:
        bins: `BINS` bins of equal width over the probability of the most probable class.
        ece: Expected calibration error: mean over examples of their bin's |accuracy - confidence|.
        mce: The largest |accuracy - confidence| of a bin; a bin of few examples may make it large.
        brier: Mean over examples of the sum over classes of (probability - truth)^2: 0 best, 2 worst.
        nll: Mean of -log p(true class), probabilities below 2.2e-16 counting as that.
        confidence: Mean probability of the most probable class.
        accuracy: Share of the examples for which that class is right.
    """

    bins: tuple[ReliabilityBin, ...]
    ece: float
    mce: float
    brier: float
    nll: float
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Temperature:
    """A temperature, or the reason why there is none.

    ``nll`` and ``ece`` are (before, after) on rows that the temperature behind "after" was not fitted on.
    """

    temperature: float | None
    n: int
    reason: str | None = None
    measured_on: str | None = None
    nll: tuple[float, float] | None = None
    ece: tuple[float, float] | None = None


def calibration_of(scored: Scored) -> Calibration:
    """The calibration of a task with probabilities."""
    assert scored.probabilities is not None
    probabilities, targets = scored.probabilities.astype(np.float64), scored.targets
    bins = reliability(probabilities, targets)
    truth = np.eye(probabilities.shape[1])[targets]
    return Calibration(
        bins=bins,
        ece=_expected_gap(bins),
        mce=max(_gap(each) for each in bins if each.n),
        brier=float(np.mean(np.sum((probabilities - truth) ** 2, axis=1))),
        nll=negative_log_likelihood(probabilities, targets),
        confidence=float(probabilities.max(1).mean()),
        accuracy=float(np.mean(probabilities.argmax(1) == targets)),
    )


def reliability(probabilities: Floats, targets: Classes, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """The reliability bins of probabilities (E, C) and classes (E,)."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == targets
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    found: list[ReliabilityBin] = []
    for number, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        inside = place == number
        n = int(inside.sum())
        means = (float(confidence[inside].mean()), float(right[inside].mean())) if n else (None, None)
        found.append(ReliabilityBin(low, high, n, *means))
    return tuple(found)


def expected_calibration_error(probabilities: Floats, targets: Classes) -> float:
    """Mean over examples of |accuracy - confidence| in their bin, one of `BINS` of equal width."""
    return _expected_gap(reliability(probabilities, targets))


def negative_log_likelihood(probabilities: Floats, targets: Classes) -> float:
    """Mean of -log p(true class), of probabilities (E, C)."""
    chosen = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.maximum(chosen, _TINY)).mean())


def tempered(log_probabilities: Floats, temperature: float) -> Floats:
    """Probabilities (E, C) at a temperature, from their logarithms at 1."""
    return np.exp(log_softmax(log_probabilities / temperature, axis=1))


def best_temperature(log_probabilities: Floats, targets: Classes) -> float | None:
    """The temperature of the least negative log-likelihood, None where `LOWEST` or `HIGHEST` is as good.

    log_probabilities: (E, C), finite; targets: (E,).
    """
    rows = np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(log_probabilities / np.exp(log_temperature), axis=1)[rows, targets].mean())

    ends = (np.log(LOWEST), np.log(HIGHEST))
    found = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6})
    is_best = found.fun < min(map(loss, ends)) - 1e-9  # a loss that only falls towards an end has no best inside
    return float(np.exp(found.x)) if is_best else None


def fit_temperature(
    log_probabilities: Floats, targets: Classes, others: tuple[Floats, Classes] | None = None
) -> Temperature:
    """The best temperature on these rows, and what it does on rows that it was not fitted on.

    Those are ``others`` where given. Else the rows are divided in two, alike in classes; each half is measured at the
    temperature of the other one.
    """
    n = len(targets)
    reason = _unfit(log_probabilities, targets)
    if reason is not None:
        return Temperature(None, n, reason)
    temperature = best_temperature(log_probabilities, targets)
    if temperature is None:
        return Temperature(None, n, f"no temperature between {LOWEST:g} and {HIGHEST:g} is best")
    if others is None:
        measured, truth = log_probabilities, targets
        after = _cross_fitted(log_probabilities, targets, temperature)
    else:
        measured, truth = others
        after = tempered(measured, temperature)
    before = tempered(measured, 1.0)
    return Temperature(
        temperature,
        n,
        measured_on="two folds, each at the other's temperature" if others is None else "rows it was not fitted on",
        nll=(negative_log_likelihood(before, truth), negative_log_likelihood(after, truth)),
        ece=(expected_calibration_error(before, truth), expected_calibration_error(after, truth)),
    )


def _unfit(log_probabilities: Floats, targets: Classes) -> str | None:
    if len(targets) < FEWEST_ROWS:
        return f"{len(targets)} rows; a temperature needs {FEWEST_ROWS}"
    if len(np.unique(targets)) < 2:
        return "all rows are of one class"
    if not np.isfinite(log_probabilities).all():
        return "some probabilities are no finite numbers"
    return None


def _cross_fitted(log_probabilities: Floats, targets: Classes, otherwise: float) -> Floats:
    """Probabilities (E, C), each row's at the temperature of the half that it is not in."""
    order = np.lexsort((np.random.default_rng(_SEED).permutation(len(targets)), targets))
    half = np.empty(len(targets), np.int64)
    half[order] = np.arange(len(targets)) % 2
    found = np.empty_like(log_probabilities)
    for number in (0, 1):
        own, other = half == number, half != number
        temperature = best_temperature(log_probabilities[other], targets[other])
        found[own] = tempered(log_probabilities[own], temperature or otherwise)
    return found


def _expected_gap(bins: Sequence[ReliabilityBin]) -> float:
    return sum(each.n * _gap(each) for each in bins if each.n) / sum(each.n for each in bins)


def _gap(each: ReliabilityBin) -> float:
    assert each.accuracy is not None
    assert each.confidence is not None
    return abs(each.accuracy - each.confidence)
