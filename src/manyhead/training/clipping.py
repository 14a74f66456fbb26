"""Clipping: gradients cut, or brought, to a longest norm."""

from collections.abc import Sequence
from dataclasses import dataclass

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


def clip(parameters: Sequence[nn.Parameter], clipping: Clipping) -> Tensor:
    """Scales the gradients of ``parameters`` together; returns the norm of the whole before."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    factor = float(clipping.factor(norm))
    for gradient in gradients if factor != 1.0 else ():
        gradient.mul_(factor)
    return norm
