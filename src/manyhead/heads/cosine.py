"""The cosine head: the cosine of a siamese pair's two vectors."""

import torch.nn.functional as F
from torch import Tensor, nn

from manyhead.heads import CosineHead


class Cosine(nn.Module):
    """See `build`."""

    def __init__(self, options: CosineHead) -> None:
        super().__init__()
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, vectors: Tensor) -> Tensor:
        """Pooled vectors (E, 2, D) to cosines (E, 1)."""
        u, v = self.dropout(vectors).unbind(1)
        return F.cosine_similarity(u, v, dim=1)[:, None]


def build(options: CosineHead, width: int, outputs: int, *, siamese: bool) -> nn.Module:
    """A head without parameters; raises ValueError unless the pair is siamese and one output is asked for."""
    del width
    if not siamese or outputs != 1:
        raise ValueError("the cosine head gives one output for a siamese pair")
    return Cosine(options)
