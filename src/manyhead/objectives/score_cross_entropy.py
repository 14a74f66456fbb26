"""Cross entropy of a score over the whole numbers of its range (S2)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from manyhead.objectives import ScoreCrossEntropy, TargetSpec
from manyhead.objectives.base import Objective, Piece, Predictions


class ScoreSoftmaxCrossEntropy:
    """-sum_c t_c log p_c over the whole numbers c of the range, C of them; sum_c c p_c is the prediction.

    A soft target shares one between the two numbers next to the score, so that its own expectation is the score; a
    hard one is the nearest number, halves going up. Scores beyond the range count as its ends.
    """

    def __init__(self, lowest: int, highest: int, targets: Literal["soft", "hard"]) -> None:
        self.lowest = lowest
        self.outputs = highest - lowest + 1
        self.soft = targets == "soft"

    def losses(self, piece: Piece) -> Tensor:
        """Logits (E, C) and scores (E,) to losses (E,)."""
        logs = piece.outputs.log_softmax(1)
        scores = piece.targets.to(logs.dtype).clamp(self.lowest, self.lowest + self.outputs - 1)
        below = scores.floor()
        share = scores - below
        if not self.soft:
            share = (share >= 0.5).to(logs.dtype)
        first = below.long() - self.lowest
        chosen = logs.gather(1, torch.stack([first, (first + 1).clamp_max(self.outputs - 1)], dim=1))
        return -(chosen[:, 0] * (1 - share) + chosen[:, 1] * share)

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """The log-softmax (E, C) over the whole numbers."""
        return outputs.log_softmax(1)

    def predict(self, outputs: Tensor) -> Predictions:
        """The expected number."""
        numbers = torch.arange(self.outputs, device=outputs.device, dtype=outputs.dtype) + self.lowest
        return Predictions(None, F.softmax(outputs, dim=1) @ numbers)


def build(options: ScoreCrossEntropy, target: TargetSpec) -> Objective:
    """See `ScoreSoftmaxCrossEntropy`; raises ValueError where the ends of the range are no whole numbers."""
    if target.range is None or not all(end.is_integer() for end in target.range):
        raise ValueError("score_cross_entropy needs a range between whole numbers")
    lowest, highest = map(int, target.range)
    return ScoreSoftmaxCrossEntropy(lowest, highest, options.targets)
