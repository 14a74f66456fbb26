"""Stochastic gradient descent, torch's own."""

from collections.abc import Sequence

import torch

from manyhead.optimizers import SGDOptions
from manyhead.optimizers.groups import Group, as_dicts


def build(options: SGDOptions, groups: Sequence[Group]) -> torch.optim.Optimizer:
    """SGD: decay is added to the gradient."""
    # Not the fused one: it fails where parameters of a group have their first gradients in different steps.
    return torch.optim.SGD(as_dicts(groups), momentum=options.momentum, nesterov=options.nesterov)
