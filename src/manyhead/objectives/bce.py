"""Binary cross entropy on one logit."""

import torch
import torch.nn.functional as F
from torch import Tensor

from manyhead.objectives import BinaryCrossEntropy, TargetSpec
from manyhead.objectives.base import Objective, Predictions


class LogitCrossEntropy:
    """-log p(target) for two classes and one logit of the second, times the target's class weight.

    ``label_smoothing`` s: the target is (1 - s) of itself and s / 2 of each class.
    """

    outputs = 1

    def __init__(self, target: TargetSpec) -> None:
        self.weights = torch.tensor(target.class_weights) if target.class_weights else None
        self.smoothing = target.label_smoothing

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Logits (E, 1) and class indices (E,) in {0, 1} to losses (E,)."""
        soft = targets.to(outputs.dtype) * (1 - self.smoothing) + self.smoothing / 2
        weights = None if self.weights is None else self.weights.to(outputs)[targets]
        return F.binary_cross_entropy_with_logits(outputs[:, 0], soft, weights, reduction="none")

    def predict(self, outputs: Tensor) -> Predictions:
        """The probabilities of both classes."""
        positive = outputs[:, 0].sigmoid()
        return Predictions(torch.stack([1 - positive, positive], dim=1), None)


def build(options: BinaryCrossEntropy, target: TargetSpec) -> Objective:
    """See `LogitCrossEntropy`."""
    del options
    return LogitCrossEntropy(target)
