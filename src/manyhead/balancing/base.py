"""The interface of balancers: what they see of a step, and what they answer."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Key = tuple[int | str, ...]


@dataclass(frozen=True)
class Signals:
    """What a balancer sees of a step.

    ``tasks``: the K tasks of the step, in recipe order. ``losses`` (K,): their mean losses over the whole step, without
    a graph, on the CPU; None before they are known. ``gramian`` (K, K): the inner products of their gradients over the
    shared parameters, float64, on the CPU; None where they are not known apart. ``epoch`` counts from 0. ``key`` names
    the step: seed, stage and number, for draws.
    """

    tasks: tuple[str, ...]
    losses: Tensor | None
    gramian: Tensor | None
    epoch: int
    key: Key


class Balancer(nn.Module):
    """Gives each task of a step a weight: the update follows the weighted sum of the tasks' gradients.

    ``constants`` are factors of the losses that come before everything else; a task without one has 1. What has to go
    on after an interruption, or is learned with the weights of the model, is its state.
    """

    needs_losses = False
    """Whether `weights` asks for the step's losses."""
    needs_gramian = False
    """Whether `weights` asks for the Gramian of the tasks' gradients; it is then asked once a step."""
    weighs_heads = True
    """Whether a task's weight holds for its own parameters (head, experts) too, or for shared ones only."""

    def __init__(self, constants: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.constants = dict(constants or {})

    def weights(self, signals: Signals) -> Tensor:
        """Weights (K,) of the tasks of a step, without a graph, on the CPU: 1 where a member says nothing else."""
        return torch.ones(len(signals.tasks))

    def observe(self, signals: Signals) -> None:
        """Sees the whole step, its losses included, before the update: where gradients of own parameters are set."""


class Remembering(Balancer):
    """A balancer that keeps numbers from step to step: ``memory``, float64, on the CPU wherever the model is.

    ``places`` maps all tasks of the stage to their places in it.
    """

    def __init__(
        self, tasks: Mapping[str, object], memory: Tensor, constants: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(constants)
        self.places = {task: place for place, task in enumerate(tasks)}
        self.memory = memory.double()

    def rows(self, signals: Signals) -> Tensor:
        """The places (K,) of the step's tasks in the memory."""
        return torch.tensor([self.places[task] for task in signals.tasks])

    def get_extra_state(self) -> Tensor:
        """The memory."""
        return self.memory.clone()

    def set_extra_state(self, state: Tensor) -> None:
        """Takes the memory of an equal balancer. Raises ValueError where the shape is another."""
        if state.shape != self.memory.shape:
            raise ValueError(
                f"{type(self).__name__} remembers {tuple(self.memory.shape)} numbers, got {tuple(state.shape)}"
            )
        self.memory = state.to("cpu", torch.float64, copy=True)
