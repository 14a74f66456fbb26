"""What losses of a siamese pair's vectors share: cosines, and classes predicted from a cosine."""

import torch
import torch.nn.functional as F
from torch import Tensor

from manyhead.objectives.base import Piece, Predictions


class CosineClasses:
    """Two classes from one cosine c: P(positive) = sigmoid(scale * c), where c is given behind a fitted threshold.

    As a main loss it wants the cosine head; the loss itself reads the vectors, so that it may stand beside any other.
    """

    outputs = 1
    fits_threshold = True
    takes_temperature = True
    scale = 1.0

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """Of both classes, (E, 2)."""
        return F.logsigmoid(torch.cat([-outputs, outputs], dim=1) * self.scale)

    def predict(self, outputs: Tensor) -> Predictions:
        """The probabilities of both classes."""
        positive = (outputs[:, 0] * self.scale).sigmoid()
        return Predictions(torch.stack([1 - positive, positive], dim=1), None)


def pair_vectors(piece: Piece) -> tuple[Tensor, Tensor]:
    """The vectors u and v, (E, D) each, of siamese pairs."""
    u, v = piece.vectors.unbind(1)
    return u, v


def mean_over(chosen: Tensor, losses: Tensor) -> Tensor:
    """Losses (E,) scaled so that their mean is that of the ``chosen`` (E,) ones; 0 where none is."""
    kept = chosen.to(losses.dtype)
    return losses * kept * (len(losses) / kept.sum().clamp_min(1))
