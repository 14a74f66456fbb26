"""One update: the parts of a step through the model, losses, balancing, backward, clipping, optimiser."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from manyhead.balancing.base import Balancer
from manyhead.batching import pack
from manyhead.data.task_data import TaskData
from manyhead.errors import DivergedError
from manyhead.model import MultiTaskModel
from manyhead.objectives.base import Objective, reduce_losses
from manyhead.schedules.base import Indices, Step


@dataclass(frozen=True)
class Learner:
    """Everything an update needs but the step itself.

    ``stage`` is the stage's name, for draws and messages; ``lr`` the encoder's full rate, for the record.
    """

    model: MultiTaskModel
    data: Mapping[str, TaskData]
    objectives: Mapping[str, Objective]
    balancer: Balancer
    optimizer: torch.optim.Optimizer
    clip_norm: float | None
    accumulation: int
    segment_ids: bool
    lr: float
    seed: int
    stage: str


@dataclass(frozen=True)
class StepResult:
    """What an update did: mean loss and examples of each task, the gradient's norm before clipping, tokens."""

    losses: dict[str, float]
    examples: dict[str, int]
    grad_norm: float
    tokens: int


def take_step(learner: Learner, step: Step) -> StepResult:
    """Carries out one update.

    A step's examples run in ``accumulation`` pieces; each loss is divided by the whole step's count, so the pieces add
    up to the unsplit step. Raises `DivergedError` before the update where a loss or the gradient is not finite.
    """
    model = learner.model.train()
    device = next(model.parameters()).device
    clear_gradients(model)
    counts = {part.task: len(part.examples) for part in step.parts}
    losses: dict[str, Tensor] = {}
    tokens = 0
    stores = {task: data.tokens for task, data in learner.data.items()}
    for micro in range(learner.accumulation):
        parts = [part.slice(0, 1, micro, learner.accumulation) for part in step.parts]
        parts = [part for part in parts if len(part.examples)]
        if not parts:
            continue
        torch.manual_seed(micro_seed(learner.seed, learner.stage, step.index, micro))
        batch = pack(parts, stores, segment_ids=learner.segment_ids).to(device)
        outputs = model(batch)
        piece: dict[str, Tensor] = {}
        for part in parts:
            targets = _targets(learner.data[part.task], part.examples).to(device)
            per_example = learner.objectives[part.task].losses(outputs[part.task], targets)
            piece[part.task] = reduce_losses(per_example, counts[part.task])
        learner.balancer.combine(piece).backward()
        for task, loss in piece.items():
            losses[task] = losses.get(task, torch.zeros((), device=device)) + loss.detach()
        tokens += batch.n_tokens
    found = {task: float(loss) for task, loss in losses.items()}
    norm = float(_clip(model, learner.clip_norm))
    _check_finite(learner, step, found, norm)
    learner.optimizer.step()
    return StepResult(found, counts, norm, tokens)


def micro_seed(seed: int, stage: str, step: int, micro: int, rank: int = 0) -> int:
    """The seed of torch's generator at the start of a piece of a step; everything random in it follows from this."""
    key = f"{seed}/{stage}/{step}/{micro}/{rank}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1


def clear_gradients(model: nn.Module) -> None:
    """Forgets all gradients, so that a parameter which the step does not use has none and is left alone.

    Embeddings with sparse gradients keep a dense buffer, set to zero: adding the few touched rows to it is cheaper than
    a new dense gradient of the whole vocabulary in each step.
    """
    for module in model.modules():
        sparse = isinstance(module, nn.Embedding) and module.sparse
        for parameter in module.parameters(recurse=False):
            if sparse and parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                else:
                    parameter.grad.zero_()
            else:
                parameter.grad = None


def _clip(model: nn.Module, clip_norm: float | None) -> Tensor:
    """The norm of the whole gradient; scales it to ``clip_norm`` where it is longer."""
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    if clip_norm is None:
        return torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    return torch.nn.utils.clip_grad_norm_(parameters, clip_norm)


def _targets(data: TaskData, examples: Indices) -> Tensor:
    assert data.targets is not None
    return torch.from_numpy(data.targets[examples])


def _check_finite(learner: Learner, step: Step, losses: Mapping[str, float], norm: float) -> None:
    finite = torch.isfinite(torch.tensor([*losses.values(), norm]))
    if bool(finite.all()):
        return
    bad = [task for task, loss in losses.items() if not torch.isfinite(torch.tensor(loss))] or list(losses)
    rows = "; ".join(
        f"{part.task}: {', '.join(learner.data[part.task].ids[int(row)] for row in part.examples[:20])}"
        for part in step.parts
        if part.task in bad
    )
    what = "loss" if any(not torch.isfinite(torch.tensor(loss)) for loss in losses.values()) else "gradient"
    raise DivergedError(
        f"stage {learner.stage}, step {step.index}: the {what} of {', '.join(bad)} is not a finite number; the weights "
        f"before this step are kept; lower the learning rate or look at the examples with these ids: {rows}"
    )
