"""One update: the pieces of a step forward and backward, balancing, clipping, optimiser."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from manyhead.balancing.base import Balancer, Signals
from manyhead.errors import DivergedError
from manyhead.faults import at
from manyhead.schedules.base import Part, Step
from manyhead.training.clipping import Clipping, clip, unclip
from manyhead.training.gradients import Gradients
from manyhead.training.losses import Lesson


class PieceTooLargeError(Exception):
    """A piece of a step did not fit into the device's memory. Nothing was changed: the step can be taken again."""


@dataclass(frozen=True)
class Learner:
    """Everything an update needs but the step itself.

    ``gradients`` collects those of a step cut into ``accumulation`` pieces, ``gradients_for`` makes one for another
    number of pieces. ``extras`` are the modules with a state that only training has. ``stage`` is the stage's name, for
    draws and messages; ``lr`` the encoder's full rate, for the record. ``skips`` updates that are not finite.
    """

    lesson: Lesson
    balancer: Balancer
    gradients: Gradients
    gradients_for: Callable[[int], Gradients]
    optimizer: torch.optim.Optimizer
    clipping: Clipping
    accumulation: int
    extras: nn.ModuleDict
    lr: float
    seed: int
    stage: str
    skips: bool

    def in_pieces(self, accumulation: int) -> "Learner":
        """This learner with its steps cut into ``accumulation`` pieces."""
        return replace(self, accumulation=accumulation, gradients=self.gradients_for(accumulation))


@dataclass(frozen=True)
class StepResult:
    """What an update did: mean loss and examples of each task, the gradient's norm before clipping, tokens.

    ``cosines`` between the tasks' gradients, in the order of ``losses``, and the gradients' ``grad_norms``, both over
    the shared parameters, where they are known. A step that is ``skipped`` changed nothing, since a loss or the
    gradient, whose norm is then NaN, was no finite number.
    """

    losses: dict[str, float]
    examples: dict[str, int]
    grad_norm: float
    tokens: int
    cosines: list[list[float]] | None = None
    grad_norms: dict[str, float] | None = None
    skipped: bool = False


def take_step(learner: Learner, step: Step) -> StepResult:
    """Carries out one update.

    A step's examples run in ``accumulation`` pieces; each loss is divided by the whole step's count, so the pieces add
    up to the unsplit step. Raises `DivergedError` before the update where a loss or the gradient is not finite and
    the learner does not skip it, and `PieceTooLargeError`; both leave everything as it was.
    """
    lesson, model = learner.lesson, learner.lesson.model.train()
    learner.extras.train()
    # Before the update, what is kept between steps is replaced, or is cloned here: this goes back to it.
    kept = learner.extras.state_dict()
    modules = (model, learner.extras)
    buffers = [buffer for module in modules for buffer in clear_gradients(module)]
    counts = {part.task: len(part.examples) for part in step.parts}
    tasks = tuple(task for task in lesson.data if task in counts)
    signals = Signals(tasks, None, None, step.epoch, (learner.seed, learner.stage, step.index))
    unclip(learner.optimizer)
    norm: float | None = None
    cosines: Tensor | None = None
    norms: Tensor | None = None
    try:
        values, tokens = _run_pieces(learner, step, counts, signals)
        found = dict(zip(tasks, values.tolist(), strict=True))
        if all(map(math.isfinite, found.values())):
            signals = Signals(tasks, values, None, step.epoch, signals.key)
            at("gradients", model)
            # What changes gradients before they are clipped, and what else has some, must not be left out of the norm.
            last = [each for each in lesson.regularisers if each.adjusts], [*learner.extras.parameters()]
            balanced = learner.gradients.finish(signals, None if any(last) else learner.clipping)
            cosines, norms = balanced.cosines, balanced.norms
            learner.balancer.observe(signals)
            for buffer in buffers:
                buffer.drop_unused()
            for regulariser in lesson.regularisers:
                regulariser.adjust(model)
            norm = balanced.norm
            if norm is None:
                clipped = [each for module in modules for each in module.parameters()]
                norm = float(clip(clipped, learner.clipping, learner.optimizer))
    except torch.OutOfMemoryError as error:
        learner.extras.load_state_dict(kept)
        for module in modules:
            module.zero_grad()
        raise PieceTooLargeError(str(error)) from None
    if norm is None or not math.isfinite(norm):
        learner.extras.load_state_dict(kept)
        if not learner.skips:
            raise diverged(learner, step, found)
        return StepResult(found, counts, math.nan, tokens, skipped=True)
    learner.optimizer.step()
    for regulariser in lesson.regularisers:
        regulariser.updated(model)
    at("updated", model)
    return StepResult(
        found,
        counts,
        norm,
        tokens,
        cosines=None if cosines is None else cosines.tolist(),
        grad_norms=None if norms is None else dict(zip(tasks, norms.tolist(), strict=True)),
    )


def _run_pieces(learner: Learner, step: Step, counts: Mapping[str, int], signals: Signals) -> tuple[Tensor, int]:
    """Runs all pieces forward and backward: the tasks' mean losses (K,) in the signals' order, and the tokens."""
    lesson = learner.lesson
    device = next(lesson.model.parameters()).device
    losses = {task: torch.zeros((), device=device) for task in signals.tasks}
    tokens = 0

    def forward(parts: Sequence[Part]) -> dict[str, Tensor]:
        return at("losses", lesson.losses(at("forward", parts), counts))

    for micro in range(learner.accumulation):
        parts = [part.slice(0, 1, micro, learner.accumulation) for part in step.parts]
        parts = [part for part in parts if len(part.examples)]
        if not parts:
            continue
        torch.manual_seed(micro_seed(learner.seed, learner.stage, step.index, micro))
        for task, loss in learner.gradients.add(forward, parts, signals).items():
            losses[task] = losses[task] + loss
        tokens += lesson.tokens(parts)
    return torch.stack(list(losses.values())).cpu(), tokens


def micro_seed(seed: int, stage: str, step: int, micro: int, rank: int = 0) -> int:
    """The seed of torch's generator at the start of a piece of a step; everything random in it follows from this."""
    key = f"{seed}/{stage}/{step}/{micro}/{rank}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1


@dataclass(frozen=True)
class Buffer:
    """A gradient of 0 that a parameter has before the backward, and its version then."""

    parameter: nn.Parameter
    gradient: Tensor
    version: int

    def drop_unused(self) -> None:
        """Takes it from the parameter if nothing has been added to it since."""
        if self.parameter.grad is self.gradient and self.gradient._version == self.version:
            self.parameter.grad = None


def clear_gradients(model: nn.Module) -> list[Buffer]:
    """Forgets all gradients, so that a parameter which the step does not use has none and is left alone.

    Embeddings with sparse gradients keep a dense buffer, set to zero: adding the few touched rows to it is cheaper than
    a new dense gradient of the whole vocabulary in each step. Returns these: they are to be dropped where unused.
    """
    buffers: list[Buffer] = []
    for module in model.modules():
        sparse = isinstance(module, nn.Embedding) and module.sparse
        for parameter in module.parameters(recurse=False):
            if sparse and parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                else:
                    parameter.grad.zero_()
                buffers.append(Buffer(parameter, parameter.grad, parameter.grad._version))
            else:
                parameter.grad = None
    return buffers


def diverged(learner: Learner, step: Step, losses: Mapping[str, float]) -> DivergedError:
    """The error of a step whose ``losses`` or gradient are not finite."""
    bad = [task for task, loss in losses.items() if not math.isfinite(loss)]
    what = "loss" if bad else "gradient"
    rows = "; ".join(
        f"{part.task}: {', '.join(learner.lesson.data[part.task].ids[int(row)] for row in part.examples[:20])}"
        for part in step.parts
        if part.task in (bad or losses)
    )
    return DivergedError(
        f"stage {learner.stage}, step {step.index + 1}: the {what} of {', '.join(bad or losses)} is not a finite "
        "number; the weights before this step are kept; lower the learning rate, look at the examples with these ids, "
        f"or skip such steps by on_nonfinite: skip. ids of {rows}"
    )
