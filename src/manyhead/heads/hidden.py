"""The hidden head of S1: dropout, dense to 256, LayerNorm, GELU, dense."""

from torch import Tensor, nn

from manyhead.heads import HiddenHead, PairFeatures
from manyhead.heads.features import feature_width, join


class Hidden(nn.Module):
    """See `build`."""

    def __init__(self, options: HiddenHead, width: int, outputs: int, *, siamese: bool) -> None:
        super().__init__()
        self.features: PairFeatures = options.features
        self.dropout = nn.Dropout(options.dropout)
        self.dense = nn.Linear(feature_width(width, siamese=siamese, features=options.features), options.width)
        self.norm = nn.LayerNorm(options.width)
        self.activation = nn.GELU() if options.activation == "gelu" else nn.Identity()
        self.out = nn.Linear(options.width, outputs)

    def forward(self, vectors: Tensor) -> Tensor:
        """Pooled vectors (E, n, D) to outputs (E, O)."""
        hidden = self.dense(self.dropout(join(vectors, self.features)))
        return self.out(self.activation(self.norm(hidden)))


def build(options: HiddenHead, width: int, outputs: int, *, siamese: bool) -> nn.Module:
    """A head from vectors of ``width`` D over a hidden layer to ``outputs`` O."""
    return Hidden(options, width, outputs, siamese=siamese)
