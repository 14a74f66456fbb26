"""Clipping: gradients cut, or brought, to a longest norm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Clipping:
    """How gradients are cut: to ``norm`` (None: not at all), longer ones only, or ``always``."""

    norm: float | None
    always: bool = False

    def factor(self, length: Tensor) -> Tensor:
        """What a gradient of ``length``, of any shape, is scaled by: min(1, norm / length), or norm / length always."""
        if self.norm is None:
            return torch.ones_like(length)
        ratio = self.norm / (length + 1e-6)
        return ratio if self.always else ratio.clamp_max(1.0)


def clip(parameters: Sequence[nn.Parameter], clipping: Clipping, optimizer: torch.optim.Optimizer) -> Tensor:
    """Scales the gradients of ``parameters`` together; returns the norm of the whole before.

    An optimiser that reads them only once anyway scales them itself, in its next step.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    factor = float(clipping.factor(norm))
    if factor == 1.0:
        return norm
    if factor and math.isfinite(factor) and _scales(optimizer):
        fused: Any = optimizer  # what AMP's scaler hands over: gradients are divided by it
        fused.grad_scale = torch.tensor(1 / factor, device=norm.device)
        fused.found_inf = torch.zeros((), device=norm.device)
        return norm
    for gradient in gradients:
        gradient.mul_(factor)
    return norm


def unclip(optimizer: torch.optim.Optimizer) -> None:
    """Takes back what `clip` has told the optimiser."""
    if _scales(optimizer):
        fused: Any = optimizer
        fused.grad_scale = fused.found_inf = None


def _scales(optimizer: torch.optim.Optimizer) -> bool:
    return isinstance(optimizer, torch.optim.Adam) and bool(optimizer.defaults.get("fused"))
