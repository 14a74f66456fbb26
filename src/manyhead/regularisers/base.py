"""The interface of regularisers: the moments of a step in which they act."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from manyhead.objectives.base import Objective, Piece
from manyhead.packed import PackedBatch, PackedModel, Passed
from manyhead.regularisers import TaskRegulariser


@dataclass(frozen=True)
class TrainingPass:
    """A piece of a step that went through the model: what went in, what came out, by task.

    ``losses`` (E,) are all that a task has, without penalties; ``losses_of`` gives those of another pass of its piece.
    """

    model: PackedModel
    batch: PackedBatch
    passed: Passed
    pieces: Mapping[str, Piece]
    objectives: Mapping[str, Objective]
    losses: Mapping[str, Tensor]
    losses_of: Callable[[str, Piece], Tensor]


class Regulariser(nn.Module):
    """Acts at the moments that a member overrides. What it keeps between steps is its state."""

    @property
    def adjusts(self) -> bool:
        """Whether it changes gradients."""
        return type(self).adjust is not Regulariser.adjust

    def started(self, model: nn.Module) -> None:
        """Sees the weights that a stage starts from."""

    def penalties(self, done: TrainingPass) -> Mapping[str, Tensor]:
        """Penalties (E,) of the examples of some tasks, added to their losses."""
        del done
        return {}

    def adjust(self, model: nn.Module) -> None:
        """Changes the gradients before they are clipped. Parameters without a gradient are left alone."""

    def updated(self, model: nn.Module) -> None:
        """Sees the weights after an update."""


def chosen(options: TaskRegulariser, tasks: Sequence[str]) -> tuple[str, ...]:
    """Those of the ``tasks`` that a stage trains on which a regulariser acts."""
    return tuple(task for task in tasks if options.tasks is None or task in options.tasks)
