"""The training loop: a generator of step records that its consumer logs, evaluates, saves and stops."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from manyhead.rates import Rate
from manyhead.schedules.base import Schedule
from manyhead.training.step import Learner, take_step


@dataclass(frozen=True)
class StepRecord:
    """One update, as logged. ``step`` counts within the stage from 1; ``epoch`` from 0.

    ``cosines`` between the tasks' gradients, in the order of ``losses``, where they are known.
    """

    step: int
    epoch: int
    losses: dict[str, float]
    lr: float
    grad_norm: float
    examples: dict[str, int]
    tokens: int
    seconds: float
    cosines: list[list[float]] | None = None


def steps(learner: Learner, schedule: Schedule, rate: Rate, *, start: int, stop: int) -> Iterator[StepRecord]:
    """Takes the steps ``start`` to ``stop`` of a stage, one each time it is asked for the next record."""
    full_rates = [float(group["lr"]) for group in learner.optimizer.param_groups]
    try:
        for index in range(start, stop):
            began = time.perf_counter()
            step = schedule.step(index)
            factor = rate(index)
            for group, lr in zip(learner.optimizer.param_groups, full_rates, strict=True):
                group["lr"] = lr * factor
            result = take_step(learner, step)
            yield StepRecord(
                step=index + 1,
                epoch=step.epoch,
                losses=result.losses,
                lr=learner.lr * factor,
                grad_norm=result.grad_norm,
                examples=result.examples,
                tokens=result.tokens,
                seconds=time.perf_counter() - began,
                cosines=result.cosines,
            )
    finally:
        for group, lr in zip(learner.optimizer.param_groups, full_rates, strict=True):
            group["lr"] = lr
