"""Rates: the factor on every group's learning rate, a pure function of where a stage is.

Builders: ``build(options, total_steps, epoch_steps) -> Callable[[int], float]``; the callable takes the 0-based step.
"""

import math
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from manyhead.recipe.schema import Entry, Options

Rate = Callable[[int], float]


class RateOptions(Options):
    """What every rate takes."""

    warmup: float = Field(
        default=0.0, ge=0, description="Steps the rate rises from 0; below 1 a share of the stage's steps."
    )


class ConstantRate(RateOptions):
    """1."""

    kind: Literal["constant"] = "constant"


class HalvedRate(RateOptions):
    """Halved at the start of each epoch but the first (S1)."""

    kind: Literal["halved"] = "halved"


class LinearRate(RateOptions):
    """From 1 down to 0 at the stage's end."""

    kind: Literal["linear"] = "linear"


class CosineRate(RateOptions):
    """From 1 down to 0 at the stage's end, along half a cosine."""

    kind: Literal["cosine"] = "cosine"


RATES: dict[str, Entry] = {
    "constant": Entry(ConstantRate, "manyhead.rates:build_constant"),
    "halved": Entry(HalvedRate, "manyhead.rates:build_halved"),
    "linear": Entry(LinearRate, "manyhead.rates:build_linear"),
    "cosine": Entry(CosineRate, "manyhead.rates:build_cosine"),
}


def build_constant(options: ConstantRate, total_steps: int, epoch_steps: int) -> Rate:
    """1 after the warm-up."""
    del epoch_steps
    return _warmed(options, total_steps, lambda _: 1.0)


def build_halved(options: HalvedRate, total_steps: int, epoch_steps: int) -> Rate:
    """.5^(e-1) in the e-th epoch."""
    return _warmed(options, total_steps, lambda step: 0.5 ** (step // epoch_steps))


def build_linear(options: LinearRate, total_steps: int, epoch_steps: int) -> Rate:
    """Falls by equal amounts and would reach 0 one step after the last."""
    del epoch_steps
    return _warmed(options, total_steps, _falling(options, total_steps, lambda left: left))


def build_cosine(options: CosineRate, total_steps: int, epoch_steps: int) -> Rate:
    """(1 + cos(pi x)) / 2 for x from 0 to 1."""
    del epoch_steps
    return _warmed(
        options, total_steps, _falling(options, total_steps, lambda left: 0.5 - 0.5 * math.cos(math.pi * left))
    )


def _warmup_steps(options: RateOptions, total_steps: int) -> int:
    return round(options.warmup * total_steps if options.warmup < 1 else options.warmup)


def _falling(options: RateOptions, total_steps: int, shape: Callable[[float], float]) -> Rate:
    warmup = _warmup_steps(options, total_steps)
    return lambda step: shape(max(0.0, (total_steps - step) / max(1, total_steps - warmup)))


def _warmed(options: RateOptions, total_steps: int, rate: Rate) -> Rate:
    warmup = _warmup_steps(options, total_steps)
    return lambda step: (step + 1) / (warmup + 1) if step < warmup else rate(step)
