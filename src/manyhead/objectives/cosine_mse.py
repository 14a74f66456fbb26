"""Squared error between a score and a scaled cosine (S1, S2)."""

import torch.nn.functional as F
from torch import Tensor

from manyhead.objectives import CosineMeanSquaredError, TargetSpec
from manyhead.objectives.base import Objective, Piece, Predictions


class CosineSquaredError:
    """(y - top * cos(u, v))^2 without a clamp; ``top`` is the upper end of the task's range (5 in S1 and S2)."""

    outputs = 1

    def __init__(self, top: float) -> None:
        self.top = top

    def losses(self, piece: Piece) -> Tensor:
        """Cosines (E, 1) and scores (E,) to losses (E,)."""
        return F.mse_loss(piece.outputs[:, 0] * self.top, piece.targets, reduction="none")

    def log_probabilities(self, outputs: Tensor) -> None:
        """Scores have none."""

    def predict(self, outputs: Tensor) -> Predictions:
        """The scaled cosine."""
        return Predictions(None, outputs[:, 0] * self.top)


def build(options: CosineMeanSquaredError, target: TargetSpec) -> Objective:
    """See `CosineSquaredError`; raises ValueError where the task declares no range."""
    del options
    if target.range is None:
        raise ValueError("cosine_mse needs the task's range")
    return CosineSquaredError(target.range[1])
