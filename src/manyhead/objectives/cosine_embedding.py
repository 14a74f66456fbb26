"""Cosine embedding loss: positive pairs together, negative pairs apart."""

import torch
import torch.nn.functional as F
from torch import Tensor

from manyhead.objectives import CosineEmbedding, TargetSpec
from manyhead.objectives.base import Objective, Piece
from manyhead.objectives.cosines import CosineClasses, pair_vectors


class CosineEmbeddingError(CosineClasses):
    """1 - cos(u, v) for positive pairs, max(0, cos(u, v) - margin) for negative ones (S4)."""

    def __init__(self, margin: float) -> None:
        self.margin = margin

    def losses(self, piece: Piece) -> Tensor:
        """Vectors (E, 2, D) and class indices (E,) in {0, 1} to losses (E,)."""
        cosines = F.cosine_similarity(*pair_vectors(piece), dim=1)
        return torch.where(piece.targets == 1, 1 - cosines, (cosines - self.margin).clamp_min(0))


def build(options: CosineEmbedding, target: TargetSpec) -> Objective:
    """See `CosineEmbeddingError`."""
    del target
    return CosineEmbeddingError(options.margin)
