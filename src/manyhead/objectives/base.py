"""The interface of objectives, what they see of a step, and the one place where losses are reduced."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """One task's examples in a piece of a step, behind the model.

    ``outputs`` (E, O) of the task's head; ``vectors`` (E, n, D) that the head read, n = 2 for a siamese pair;
    ``targets`` (E,) class indices or scores.
    """

    outputs: Tensor
    vectors: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Predictions:
    """What outputs mean: ``probabilities`` (E, C) for classes, or ``scores`` (E,) for a score; the other is None."""

    probabilities: Tensor | None
    scores: Tensor | None


class Objective(Protocol):
    """Loss and meaning of a task's outputs.

    One that keeps something between steps is an ``nn.Module`` with it as its state. One with a true ``fits_threshold``
    is given outputs to `predict` from which a threshold has been taken off, fitted on training rows. One with a true
    ``takes_temperature`` has probabilities that are a softmax or sigmoid of its outputs, so that dividing these by a
    positive number changes how sure they are, but not which class is the most probable. One with a true ``in_batch``
    has losses that depend on which other examples they are computed with.
    """

    outputs: int
    """Outputs O that the head must give."""

    def losses(self, piece: Piece) -> Tensor:
        """Losses (E,), one an example. Where they depend on the others of the piece, their mean is the piece's loss."""
        ...

    def log_probabilities(self, outputs: Tensor) -> Tensor | None:
        """Logarithms (E, C) of the probabilities that ``outputs`` (E, O) give to classes; None where there are none."""
        ...

    def predict(self, outputs: Tensor) -> Predictions:
        """``outputs`` (E, O) to what they predict."""
        ...


def reduce_losses(losses: Tensor, step_examples: int) -> Tensor:
    """The share of a piece's losses (E,) in the mean over all ``step_examples`` of the task in the step."""
    return losses.sum() / step_examples
