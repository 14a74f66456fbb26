"""Dropout whose mask is cheap to draw on a CPU, and how it replaces torch's inside an encoder."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 1 << 16


class _MaskedScale(torch.autograd.Function):
    """x times a mask that already holds the scale."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return values * mask

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return grads[0] * mask, None


def dropout(values: Tensor, rate: float, *, training: bool) -> Tensor:
    """Sets each value to 0 with probability ``rate`` and scales the others to keep the mean.

    torch draws a CPU mask one value at a time in one thread. Here each 64-bit draw of the same generator gives four
    values' 16-bit levels, so ``rate`` is rounded to a multiple of 2^-16. Elsewhere than on a CPU this is torch's.
    """
    if not training or rate == 0.0 or values.numel() == 0:
        return values
    if values.device.type != "cpu":
        return F.dropout(values, rate)
    threshold = min(round(rate * _LEVELS), _LEVELS - 1)
    draws = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    levels = draws.view(torch.int16)[: values.numel()].view(values.shape)
    mask = (levels >= threshold - _LEVELS // 2).to(values.dtype).mul_(_LEVELS / (_LEVELS - threshold))
    return cast("Tensor", _MaskedScale.apply(values, mask))


class Dropout(nn.Module):
    """`dropout` as a module; ``p`` is read by transformers' attention modules."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape to the same shape."""
        return dropout(values, self.p, training=self.training)


def replace_dropout(model: nn.Module) -> None:
    """Puts `Dropout` in the place of every ``nn.Dropout`` of ``model``."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))
