"""Binary cross entropy on one logit."""

import torch
import torch.nn.functional as F
from torch import Tensor

from manyhead.objectives import BinaryCrossEntropy, TargetSpec
from manyhead.objectives.base import Objective, Piece, Predictions


class LogitCrossEntropy:
    """-log p(target) for two classes and one logit of the second, times the target's class weight.

    ``label_smoothing`` s: the target is (1 - s) of itself and s / 2 of each class. ``fits_threshold``: the logit above
    which a prediction is positive is fitted on the training rows, and taken off before `predict`.
    """

    outputs = 1
    takes_temperature = True

    def __init__(self, target: TargetSpec, *, fits_threshold: bool) -> None:
        self.fits_threshold = fits_threshold
        self.weights = torch.tensor(target.class_weights) if target.class_weights else None
        self.smoothing = target.label_smoothing

    def losses(self, piece: Piece) -> Tensor:
        """Logits (E, 1) and class indices (E,) in {0, 1} to losses (E,)."""
        logits, targets = piece.outputs[:, 0], piece.targets
        soft = targets.to(logits.dtype) * (1 - self.smoothing) + self.smoothing / 2
        weights = None if self.weights is None else self.weights.to(logits)[targets]
        return F.binary_cross_entropy_with_logits(logits, soft, weights, reduction="none")

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """Of both classes, (E, 2)."""
        return F.logsigmoid(torch.cat([-outputs, outputs], dim=1))

    def predict(self, outputs: Tensor) -> Predictions:
        """The probabilities of both classes."""
        positive = outputs[:, 0].sigmoid()
        return Predictions(torch.stack([1 - positive, positive], dim=1), None)


def build(options: BinaryCrossEntropy, target: TargetSpec) -> Objective:
    """See `LogitCrossEntropy`."""
    return LogitCrossEntropy(target, fits_threshold=options.threshold == "fitted")
