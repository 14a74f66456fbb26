"""Softmax cross entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor

from manyhead.objectives import CrossEntropy, TargetSpec
from manyhead.objectives.base import Objective, Piece, Predictions


class SoftmaxCrossEntropy:
    """-log p(target), times the target's class weight.

    With weights the mean over examples divides by their number, not by the sum of weights as torch does, so that pieces
    of a step add up to the whole. ``label_smoothing`` s: the target is (1 - s) of itself and s / C of each class.
    """

    takes_temperature = True

    def __init__(self, target: TargetSpec) -> None:
        self.outputs = len(target.labels)
        self.weights = torch.tensor(target.class_weights) if target.class_weights else None
        self.smoothing = target.label_smoothing

    def losses(self, piece: Piece) -> Tensor:
        """Logits (E, C) and class indices (E,) to losses (E,)."""
        weights = None if self.weights is None else self.weights.to(piece.outputs)
        return F.cross_entropy(piece.outputs, piece.targets, weights, reduction="none", label_smoothing=self.smoothing)

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """The log-softmax (E, C)."""
        return outputs.log_softmax(1)

    def predict(self, outputs: Tensor) -> Predictions:
        """The softmax."""
        return Predictions(outputs.softmax(1), None)


def build(options: CrossEntropy, target: TargetSpec) -> Objective:
    """See `SoftmaxCrossEntropy`."""
    del options
    return SoftmaxCrossEntropy(target)
