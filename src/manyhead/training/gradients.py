"""From the losses of a step's pieces to the gradient of the update."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from manyhead.balancing.base import Balancer, Signals
from manyhead.schedules.base import Part
from manyhead.training.clipping import Clipping

Forward = Callable[[Sequence[Part]], dict[str, Tensor]]
"""Runs some parts of a piece: each task's share in its mean loss over the step, a scalar with a graph."""


@dataclass(frozen=True)
class Balanced:
    """What is known of an update's gradient when it is balanced.

    ``cosines`` (K, K) between the tasks' gradients over the shared parameters, and the ``norms`` (K,) that these had
    before they were clipped; ``norm`` of the whole before it was clipped, None where it was not.
    """

    cosines: Tensor | None = None
    norms: Tensor | None = None
    norm: float | None = None


class Gradients(Protocol):
    """Collects the gradients of a step's pieces and leaves the update's in the parameters."""

    def add(self, forward: Forward, parts: Sequence[Part], signals: Signals) -> Mapping[str, Tensor]:
        """Runs a piece forward and backward. Returns its losses without a graph; ``signals`` has none yet."""
        ...

    def finish(self, signals: Signals, clipping: Clipping | None) -> Balanced:
        """Balances what was added. It may clip the whole as well, if ``clipping`` is given, where that saves work."""
        ...


class JointGradients:
    """One backward for all tasks of a piece: the gradient of the weighted sum of their losses.

    A balancer that needs the losses sees those of the piece: the step must not be cut.
    """

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer

    def add(self, forward: Forward, parts: Sequence[Part], signals: Signals) -> Mapping[str, Tensor]:
        """See `Gradients.add`."""
        losses = forward(parts)
        seen = {task: loss.detach() for task, loss in losses.items()}
        if self.balancer.needs_losses:
            known = torch.stack([seen[task] for task in signals.tasks]).cpu()
            signals = Signals(signals.tasks, known, None, signals.epoch, signals.key)
        weights = dict(zip(signals.tasks, self.balancer.weights(signals).tolist(), strict=True))
        constants = self.balancer.constants
        backward(losses, {task: weight * constants.get(task, 1.0) for task, weight in weights.items()})
        return seen

    def finish(self, signals: Signals, clipping: Clipping | None) -> Balanced:
        """Nothing is left to do."""
        del signals, clipping
        return Balanced()


def backward(losses: Mapping[str, Tensor], factors: Mapping[str, float]) -> None:
    """Backward from the sum of the losses, each times its factor (1 where it has none), if anything is to learn."""
    total = torch.stack([loss * factors.get(task, 1.0) for task, loss in losses.items()]).sum()
    if total.requires_grad:
        total.backward()
