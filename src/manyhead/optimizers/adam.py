"""Adam and AdamW, torch's own fused ones."""

from collections.abc import Sequence

import torch

from manyhead.optimizers import AdamOptions, AdamWOptions
from manyhead.optimizers.groups import Group, as_dicts


def build_adamw(options: AdamWOptions, groups: Sequence[Group]) -> torch.optim.Optimizer:
    """AdamW: decay is subtracted from the weights, apart from the gradient."""
    return torch.optim.AdamW(as_dicts(groups), betas=options.betas, eps=options.eps, fused=True)


def build_adam(options: AdamOptions, groups: Sequence[Group]) -> torch.optim.Optimizer:
    """Adam: decay is added to the gradient."""
    return torch.optim.Adam(as_dicts(groups), betas=options.betas, eps=options.eps, fused=True)
