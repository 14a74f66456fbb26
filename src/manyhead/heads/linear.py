"""The linear head: dropout, dense."""

from torch import Tensor, nn

from manyhead.heads import LinearHead, PairFeatures
from manyhead.heads.features import feature_width, join


class Linear(nn.Module):
    """See `build`."""

    def __init__(self, options: LinearHead, width: int, outputs: int, *, siamese: bool) -> None:
        super().__init__()
        self.features: PairFeatures = options.features
        self.dropout = nn.Dropout(options.dropout)
        self.dense = nn.Linear(feature_width(width, siamese=siamese, features=options.features), outputs)

    def forward(self, vectors: Tensor) -> Tensor:
        """Pooled vectors (E, n, D) to outputs (E, O)."""
        return self.dense(self.dropout(join(vectors, self.features)))


def build(options: LinearHead, width: int, outputs: int, *, siamese: bool) -> nn.Module:
    """A head from vectors of ``width`` D to ``outputs`` O."""
    return Linear(options, width, outputs, siamese=siamese)
