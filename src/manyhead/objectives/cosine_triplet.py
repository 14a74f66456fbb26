"""Cosine triplet loss with negatives from the piece before."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyhead.objectives import CosineTriplet, TargetSpec
from manyhead.objectives.base import Objective, Piece
from manyhead.objectives.cosines import CosineClasses, mean_over, pair_vectors


class CosineTripletError(CosineClasses, nn.Module):
    """Mean over positive pairs of max(0, d(u, v) - d(u, n) + margin), d = 1 - cos (S4).

    The negative n of each pair is one of the sentences, first or second, of the task's piece before, without a graph;
    it is drawn from torch's generator, on the CPU. The first piece has none and gives 0. The sentences kept are the
    state.
    """

    in_batch = True

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin
        self.kept = torch.empty(0, 0)

    def losses(self, piece: Piece) -> Tensor:
        """Vectors (E, 2, D) and class indices (E,) in {0, 1} to losses (E,), 0 for negatives."""
        u, v = pair_vectors(piece)
        kept, self.kept = self.kept.to(u), piece.vectors.detach().flatten(0, 1)
        nearness = F.cosine_similarity(u, v, dim=1)
        if not len(kept):
            return nearness * 0
        negatives = kept[torch.randint(len(kept), (len(u),)).to(u.device)]
        losses = (F.cosine_similarity(u, negatives, dim=1) - nearness + self.margin).clamp_min(0)
        return mean_over(piece.targets == 1, losses)

    def get_extra_state(self) -> Tensor:
        """The sentences kept, (M, D)."""
        return self.kept

    def set_extra_state(self, state: Tensor) -> None:
        """Goes on from what `get_extra_state` gave."""
        self.kept = state


def build(options: CosineTriplet, target: TargetSpec) -> Objective:
    """See `CosineTripletError`."""
    del target
    return CosineTripletError(options.margin)
