"""Squared error on the raw scale."""

import torch.nn.functional as F
from torch import Tensor

from manyhead.objectives import MeanSquaredError, TargetSpec
from manyhead.objectives.base import Objective, Predictions


class SquaredError:
    """(y - output)^2."""

    outputs = 1

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs (E, 1) and scores (E,) to losses (E,)."""
        return F.mse_loss(outputs[:, 0], targets, reduction="none")

    def predict(self, outputs: Tensor) -> Predictions:
        """The output itself."""
        return Predictions(None, outputs[:, 0])


def build(options: MeanSquaredError, target: TargetSpec) -> Objective:
    """See `SquaredError`."""
    del options, target
    return SquaredError()
