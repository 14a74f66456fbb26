"""One update: the pieces of a step forward and backward, balancing, clipping, optimiser."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from manyhead.balancing.base import Balancer, Signals
from manyhead.errors import DivergedError
from manyhead.schedules.base import Part, Step
from manyhead.training.clipping import Clipping, clip
from manyhead.training.gradients import Gradients
from manyhead.training.losses import Lesson


@dataclass(frozen=True)
class Learner:
    """Everything an update needs but the step itself.

    ``extras`` are the modules with a state that only training has. ``stage`` is the stage's name, for draws and
    messages; ``lr`` the encoder's full rate, for the record.
    """

    lesson: Lesson
    balancer: Balancer
    gradients: Gradients
    optimizer: torch.optim.Optimizer
    clipping: Clipping
    accumulation: int
    extras: nn.ModuleDict
    lr: float
    seed: int
    stage: str


@dataclass(frozen=True)
class StepResult:
    """What an update did: mean loss and examples of each task, the gradient's norm before clipping, tokens.

    ``cosines`` between the tasks' gradients, in the order of ``losses``, where they are known.
    """

    losses: dict[str, float]
    examples: dict[str, int]
    grad_norm: float
    tokens: int
    cosines: list[list[float]] | None = field(default=None)


def take_step(learner: Learner, step: Step) -> StepResult:
    """Carries out one update.

    A step's examples run in ``accumulation`` pieces; each loss is divided by the whole step's count, so the pieces add
    up to the unsplit step. Raises `DivergedError` before the update where a loss or the gradient is not finite.
    """
    lesson, model = learner.lesson, learner.lesson.model.train()
    learner.extras.train()
    modules = (model, learner.extras)
    buffers = [buffer for module in modules for buffer in clear_gradients(module)]
    counts = {part.task: len(part.examples) for part in step.parts}
    tasks = tuple(task for task in lesson.data if task in counts)
    signals = Signals(tasks, None, None, step.epoch, (learner.seed, learner.stage, step.index))
    device = next(model.parameters()).device
    losses = {task: torch.zeros((), device=device) for task in tasks}
    tokens = 0

    def forward(parts: Sequence[Part]) -> dict[str, Tensor]:
        return lesson.losses(parts, counts)

    for micro in range(learner.accumulation):
        parts = [part.slice(0, 1, micro, learner.accumulation) for part in step.parts]
        parts = [part for part in parts if len(part.examples)]
        if not parts:
            continue
        torch.manual_seed(micro_seed(learner.seed, learner.stage, step.index, micro))
        for task, loss in learner.gradients.add(forward, parts, signals).items():
            losses[task] = losses[task] + loss
        tokens += lesson.tokens(parts)
    values = torch.stack(list(losses.values())).cpu()
    found = dict(zip(tasks, values.tolist(), strict=True))
    _check_finite(learner, step, found)
    signals = Signals(tasks, values, None, step.epoch, signals.key)
    cosines = learner.gradients.finish(signals)
    learner.balancer.observe(signals)
    for buffer in buffers:
        buffer.drop_unused()
    for regulariser in lesson.regularisers:
        regulariser.adjust(model)
    norm = float(clip([parameter for module in modules for parameter in module.parameters()], learner.clipping))
    _check_finite(learner, step, found, norm)
    learner.optimizer.step()
    for regulariser in lesson.regularisers:
        regulariser.updated(model)
    return StepResult(found, counts, norm, tokens, None if cosines is None else cosines.tolist())


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


def _check_finite(learner: Learner, step: Step, losses: Mapping[str, float], norm: float = 0.0) -> None:
    finite = torch.isfinite(torch.tensor([*losses.values(), norm]))
    if bool(finite.all()):
        return
    bad = [task for task, loss in losses.items() if not torch.isfinite(torch.tensor(loss))] or list(losses)
    rows = "; ".join(
        f"{part.task}: {', '.join(learner.lesson.data[part.task].ids[int(row)] for row in part.examples[:20])}"
        for part in step.parts
        if part.task in bad
    )
    what = "loss" if any(not torch.isfinite(torch.tensor(loss)) for loss in losses.values()) else "gradient"
    raise DivergedError(
        f"stage {learner.stage}, step {step.index}: the {what} of {', '.join(bad)} is not a finite number; the weights "
        f"before this step are kept; lower the learning rate or look at the examples with these ids: {rows}"
    )
