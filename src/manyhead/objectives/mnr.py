"""Multiple negatives ranking: in-batch negatives for pairs that belong together."""

import torch
import torch.nn.functional as F
from torch import Tensor

from manyhead.objectives import MultipleNegativesRanking, TargetSpec
from manyhead.objectives.base import Objective, Piece
from manyhead.objectives.cosines import CosineClasses, mean_over, pair_vectors


class MultipleNegatives(CosineClasses):
    """Mean over positives i of -log(exp(s_ii) / sum_j exp(s_ij)), s_ij = scale * cos(u_i, v_j), j over positives.

    Henderson 2017, equation 4, with scaled cosines in the place of dot products. Fewer than two positives give 0.
    """

    in_batch = True

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def losses(self, piece: Piece) -> Tensor:
        """Vectors (E, 2, D) and class indices (E,) in {0, 1} to losses (E,), 0 for negatives."""
        u, v = pair_vectors(piece)
        positive = piece.targets == 1
        ranked = ranking_losses(u, v, self.scale, positive)
        return mean_over(positive & (positive.sum() > 1), ranked)


def ranking_losses(u: Tensor, v: Tensor, scale: float, candidates: Tensor | None = None) -> Tensor:
    """-log softmax_j(scale * cos(u_i, v_j)) at j = i, (E,), for u, v (E, D).

    ``candidates``: the j that count, (E,), or (E, E) for each i; None for all. Losses of an i that is no candidate
    itself mean nothing, but are finite.
    """
    scores = F.normalize(u, dim=1) @ F.normalize(v, dim=1).T * scale
    if candidates is not None:
        scores = scores.masked_fill(~candidates, torch.finfo(scores.dtype).min)
    return scores.logsumexp(1) - scores.diagonal()


def build(options: MultipleNegativesRanking, target: TargetSpec) -> Objective:
    """See `MultipleNegatives`."""
    del target
    return MultipleNegatives(options.scale)
