"""The MLP head: dropout, then dense and activation one or more times, dense."""

from torch import Tensor, nn

from manyhead.heads import MlpHead, PairFeatures
from manyhead.heads.features import feature_width, join
from manyhead.perceptron import perceptron


class Mlp(nn.Module):
    """See `build`."""

    def __init__(self, options: MlpHead, width: int, outputs: int, *, siamese: bool) -> None:
        super().__init__()
        self.features: PairFeatures = options.features
        self.layers = perceptron(
            feature_width(width, siamese=siamese, features=options.features),
            outputs,
            width=options.width,
            depth=options.depth,
            dropout=options.dropout,
            activation=options.activation,
        )

    def forward(self, vectors: Tensor) -> Tensor:
        """Pooled vectors (E, n, D) to outputs (E, O)."""
        return self.layers(join(vectors, self.features))


def build(options: MlpHead, width: int, outputs: int, *, siamese: bool) -> nn.Module:
    """A head from vectors of ``width`` D over hidden layers to ``outputs`` O."""
    return Mlp(options, width, outputs, siamese=siamese)
