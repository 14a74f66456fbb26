"""The blend head of S4's V3: a learned function of a siamese pair's features, mixed with the pair's cosine."""

import torch.nn.functional as F
from torch import Tensor, nn

from manyhead.heads import BlendHead
from manyhead.heads.features import feature_width, join
from manyhead.perceptron import perceptron


class Blend(nn.Module):
    """alpha f([u; v; |u-v|]) + (1 - alpha) scale cos(u, v); dropout is on f's features alone.

    S4 prints (alpha - 1) in the second place.
    """

    def __init__(self, options: BlendHead, width: int) -> None:
        super().__init__()
        self.alpha = options.alpha
        self.scale = options.scale
        inputs = feature_width(width, siamese=True, features="uv_difference")
        depth = 0 if options.width is None else 1
        self.layers = perceptron(inputs, 1, width=options.width or 1, depth=depth, dropout=options.dropout)

    def forward(self, vectors: Tensor) -> Tensor:
        """Pooled vectors (E, 2, D) to outputs (E, 1)."""
        u, v = vectors.unbind(1)
        cosine = F.cosine_similarity(u, v, dim=1)[:, None]
        return self.alpha * self.layers(join(vectors, "uv_difference")) + (1 - self.alpha) * self.scale * cosine


def build(options: BlendHead, width: int, outputs: int, *, siamese: bool) -> nn.Module:
    """See `Blend`; raises ValueError unless the pair is siamese and one output is asked for."""
    if not siamese or outputs != 1:
        raise ValueError("the blend head gives one output for a siamese pair")
    return Blend(options, width)
