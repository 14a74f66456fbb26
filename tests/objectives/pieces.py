"""Random pieces of steps, as objectives see them."""

import torch
from torch import Tensor

from manyhead.objectives import TargetSpec
from manyhead.objectives.base import Piece

FIVE = TargetSpec(labels=("a", "b", "c", "d", "e"))
TWO = TargetSpec(labels=("no", "yes"))
SCORE = TargetSpec(range=(0.0, 5.0))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def piece_of(outputs: Tensor, targets: Tensor) -> Piece:
    return Piece(outputs, torch.empty(len(outputs), 1, 0), targets)


def pairs_of(targets: list[int], width: int = 6, seed: int = 0) -> Piece:
    """Siamese pairs of random vectors, which take gradients."""
    vectors = random(len(targets), 2, width, seed=seed).requires_grad_()
    return Piece(random(len(targets), 1, seed=seed + 1), vectors, torch.tensor(targets))
