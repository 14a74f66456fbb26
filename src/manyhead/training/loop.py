"""The training loop: a generator of step records that its consumer logs, evaluates, saves and stops."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from manyhead.errors import UsageError
from manyhead.rates import Rate
from manyhead.schedules.base import Schedule, Step
from manyhead.training.step import Learner, PieceTooLargeError, StepResult, take_step


@dataclass(frozen=True)
class StepRecord:
    """One update, as logged. ``step`` counts within the stage from 1; ``epoch`` from 0.

    ``cosines`` between the tasks' gradients, in the order of ``losses``, and the gradients' ``grad_norms``, both over
    the shared parameters and before clipping, where they are known. ``pieces`` that the step was cut into;
    ``skipped``: it was no finite number and changed nothing.
    """

    step: int
    epoch: int
    losses: dict[str, float]
    lr: float
    grad_norm: float
    examples: dict[str, int]
    tokens: int
    seconds: float
    pieces: int
    cosines: list[list[float]] | None = None
    grad_norms: dict[str, float] | None = None
    skipped: bool = False


def steps(learner: Learner, schedule: Schedule, rate: Rate, *, start: int, stop: int) -> Iterator[StepRecord]:
    """Takes the steps ``start`` to ``stop`` of a stage, one each time it is asked for the next record.

    A step that does not fit into memory is taken again in twice as many pieces, and so are all behind it. Raises
    `UsageError` where that cannot help, `DivergedError` as `take_step` does: both leave all as the step before did. An
    update that does not fit, `torch.OutOfMemoryError`, may leave some weights updated.
    """
    full_rates = [float(group["lr"]) for group in learner.optimizer.param_groups]
    try:
        for index in range(start, stop):
            began = time.perf_counter()
            step = schedule.step(index)
            factor = rate(index)
            for group, lr in zip(learner.optimizer.param_groups, full_rates, strict=True):
                group["lr"] = lr * factor
            learner, result = _fitting(learner, step)
            yield StepRecord(
                step=index + 1,
                epoch=step.epoch,
                losses=result.losses,
                lr=learner.lr * factor,
                grad_norm=result.grad_norm,
                examples=result.examples,
                tokens=result.tokens,
                seconds=time.perf_counter() - began,
                pieces=learner.accumulation,
                cosines=result.cosines,
                grad_norms=result.grad_norms,
                skipped=result.skipped,
            )
    finally:
        for group, lr in zip(learner.optimizer.param_groups, full_rates, strict=True):
            group["lr"] = lr


def _fitting(learner: Learner, step: Step) -> tuple[Learner, StepResult]:
    """Takes the step, in as many pieces as memory asks for: what is left to take the next one, and the result."""
    while True:
        try:
            return learner, take_step(learner, step)
        except PieceTooLargeError:
            learner = _in_smaller_pieces(learner, step)
        torch.cuda.empty_cache()


def _in_smaller_pieces(learner: Learner, step: Step) -> Learner:
    place = f"stage {learner.stage}, step {step.index + 1}: out of memory"
    if not learner.lesson.adds_up:
        raise UsageError(
            f"{place}, and a loss of this stage depends on all examples of a batch, so that smaller pieces would "
            "train something else; expected a batch that fits; lower its batch_size or encoder.max_tokens"
        )
    if learner.accumulation >= max(len(part.examples) for part in step.parts):
        raise UsageError(
            f"{place} with one example at a time; expected that one fits; lower encoder.max_tokens, or choose a "
            "smaller encoder"
        )
    return learner.in_pieces(2 * learner.accumulation)
