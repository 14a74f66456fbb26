"""The interface of objectives, and the one place where losses are reduced."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Predictions:
    """What outputs mean: ``probabilities`` (E, C) for classes, or ``scores`` (E,) for a score; the other is None."""

    probabilities: Tensor | None
    scores: Tensor | None


class Objective(Protocol):
    """Loss and meaning of a task's outputs."""

    outputs: int
    """Outputs O that the head must give."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """``outputs`` (E, O) and ``targets`` (E,) to losses (E,)."""
        ...

    def predict(self, outputs: Tensor) -> Predictions:
        """``outputs`` (E, O) to what they predict."""
        ...


def reduce_losses(losses: Tensor, step_examples: int) -> Tensor:
    """The share of a piece's losses (E,) in the mean over all ``step_examples`` of the task in the step."""
    return losses.sum() / step_examples
