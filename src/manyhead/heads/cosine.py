"""The cosine head: the cosine of a siamese pair's two vectors."""

import torch.nn.functional as F
from torch import Tensor, nn

from manyhead.heads import CosineHead
from manyhead.perceptron import perceptron


class Cosine(nn.Module):
    """cos(f(u), f(v)) with f an MLP of the task's own (S4's V1), or cos(u, v) where there is none."""

    def __init__(self, options: CosineHead, width: int) -> None:
        super().__init__()
        if options.mlp is None:
            self.layers: nn.Module = nn.Dropout(options.dropout)
        else:
            self.layers = perceptron(width, width, width=options.mlp, dropout=options.dropout)

    def forward(self, vectors: Tensor) -> Tensor:
        """Pooled vectors (E, 2, D) to cosines (E, 1)."""
        u, v = self.layers(vectors).unbind(1)
        return F.cosine_similarity(u, v, dim=1)[:, None]


def build(options: CosineHead, width: int, outputs: int, *, siamese: bool) -> nn.Module:
    """See `Cosine`; raises ValueError unless the pair is siamese and one output is asked for."""
    if not siamese or outputs != 1:
        raise ValueError("the cosine head gives one output for a siamese pair")
    return Cosine(options, width)
