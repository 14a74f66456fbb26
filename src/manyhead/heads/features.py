"""From pooled vectors to the features a head reads: one sequence's vector, or a combination of a siamese pair's two."""

import torch
from torch import Tensor

from manyhead.heads import PairFeatures

FACTORS: dict[PairFeatures, int] = {"uv_difference": 3, "uv": 2}
"""Width of the pair features as a multiple of D."""


def feature_width(width: int, *, siamese: bool, features: PairFeatures) -> int:
    """Width F of what `join` returns, for vectors of width D."""
    return width * FACTORS[features] if siamese else width


def join(vectors: Tensor, features: PairFeatures) -> Tensor:
    """``vectors`` (E, n, D): D for n = 1; for a siamese pair [u; v; |u-v|] or [u; v]. Returns (E, F)."""
    if vectors.shape[1] == 1:
        return vectors[:, 0]
    u, v = vectors.unbind(1)
    return torch.cat([u, v, (u - v).abs()] if features == "uv_difference" else [u, v], dim=1)
