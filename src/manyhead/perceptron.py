"""The multi-layer perceptron that heads and projections are made of."""

from collections.abc import Callable
from typing import Literal

from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "none": nn.Identity,
}


def perceptron(
    inputs: int,
    outputs: int,
    *,
    width: int,
    depth: int = 1,
    dropout: float = 0.0,
    activation: Literal["tanh", "relu", "gelu", "none"] = "relu",
) -> nn.Sequential:
    """Dropout, then ``depth`` times dense to ``width`` and activation, then dense to ``outputs``."""
    layers: list[nn.Module] = [nn.Dropout(dropout)]
    for number in range(depth):
        layers += [nn.Linear(width if number else inputs, width), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(width if depth else inputs, outputs))
