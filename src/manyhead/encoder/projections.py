"""Projections: modules from pooled vectors (B, D) to vectors (B, D), which all tasks share."""

from torch import nn

from manyhead.encoder import DenseProjection, MlpProjection
from manyhead.perceptron import ACTIVATIONS, perceptron


def build_dense(options: DenseProjection, width: int) -> nn.Module:
    """Dense and activation: what S4's V2 adds to V1."""
    return nn.Sequential(nn.Linear(width, width), ACTIVATIONS[options.activation]())


def build_mlp(options: MlpProjection, width: int) -> nn.Module:
    """Dropout, dense, activation, dense: the shared MLP of S4's V3."""
    return perceptron(
        width, width, width=options.width or width, dropout=options.dropout, activation=options.activation
    )
