"""Adam and AdamW, torch's own fused ones."""

from collections.abc import Sequence
from typing import Any

import torch

from manyhead.optimizers import AdamOptions, AdamWOptions
from manyhead.optimizers.groups import Group


def build_adamw(options: AdamWOptions, groups: Sequence[Group]) -> torch.optim.Optimizer:
    """AdamW: decay is subtracted from the weights, apart from the gradient."""
    return torch.optim.AdamW(_as_dicts(groups), betas=options.betas, eps=options.eps, fused=True)


def build_adam(options: AdamOptions, groups: Sequence[Group]) -> torch.optim.Optimizer:
    """Adam: decay is added to the gradient."""
    return torch.optim.Adam(_as_dicts(groups), betas=options.betas, eps=options.eps, fused=True)


def _as_dicts(groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [{"params": list(group.parameters), "lr": group.lr, "weight_decay": group.weight_decay} for group in groups]
