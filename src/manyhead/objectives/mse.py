"""Squared error on the raw scale, alone or blended with the absolute error."""

import torch.nn.functional as F
from torch import Tensor

from manyhead.objectives import MeanSquaredAndAbsoluteError, MeanSquaredError, TargetSpec
from manyhead.objectives.base import Objective, Piece, Predictions


class SquaredError:
    """gamma * (y - output)^2 + (1 - gamma) * |y - output|.

    S4 prints (gamma - 1); the blend with weights that add up to one is what it describes.
    """

    outputs = 1

    def __init__(self, gamma: float = 1.0) -> None:
        self.gamma = gamma

    def losses(self, piece: Piece) -> Tensor:
        """Outputs (E, 1) and scores (E,) to losses (E,)."""
        outputs = piece.outputs[:, 0]
        squared = F.mse_loss(outputs, piece.targets, reduction="none")
        if self.gamma == 1:
            return squared
        return squared * self.gamma + F.l1_loss(outputs, piece.targets, reduction="none") * (1 - self.gamma)

    def log_probabilities(self, outputs: Tensor) -> None:
        """Scores have none."""

    def predict(self, outputs: Tensor) -> Predictions:
        """The output itself."""
        return Predictions(None, outputs[:, 0])


def build(options: MeanSquaredError, target: TargetSpec) -> Objective:
    """See `SquaredError`."""
    del options, target
    return SquaredError()


def build_with_l1(options: MeanSquaredAndAbsoluteError, target: TargetSpec) -> Objective:
    """See `SquaredError`."""
    del target
    return SquaredError(options.gamma)
