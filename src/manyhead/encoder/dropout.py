"""Dropout whose mask is cheap to draw on a CPU, and how it replaces torch's inside an encoder."""

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 1 << 15
_SAME_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Masks:
    """The masks of one dropout, drawn one after the other.

    torch draws a CPU mask one value at a time. Here one draw of its generator is the seed of another (SFC64), of which
    each 64 bits give four values' 15-bit levels, so ``rate`` is rounded to a multiple of 2^-15. A mask drawn in pieces
    of a multiple of four values is that drawn at once.
    """

    def __init__(self, rate: float, device: torch.device) -> None:
        self._rate = rate
        self._device = device
        self._bits = np.random.SFC64(int(torch.empty((), dtype=torch.int64).random_())) if _is_cpu(device) else None

    def draw(self, *shape: int) -> Tensor:
        """Which values are kept: int16 of ``shape``, all bits set where kept, none where dropped."""
        if self._bits is None:
            return (torch.rand(shape, device=self._device) >= self._rate).to(torch.int16).neg_()
        count = int(np.prod(shape))
        levels = torch.from_numpy(self._bits.random_raw(-(-count // 4)).view(np.int16))[:count].view(shape)
        # The sign of (level - kept), spread over all bits.
        return levels.bitwise_right_shift_(1).sub_(_LEVELS // 2 - _dropped(self._rate)).bitwise_right_shift_(15)


def kept_scale(rate: float, device: torch.device) -> float:
    """What kept values are scaled by, so that the mean stays."""
    return _LEVELS / (_LEVELS - _dropped(rate)) if _is_cpu(device) else 1 / (1 - rate)


def mask_(values: Tensor, keep: Tensor) -> Tensor:
    """Sets to 0, in place, what a mask of `Masks` drops."""
    kind = _SAME_SIZE[values.element_size()]
    values.view(kind).bitwise_and_(keep.to(kind))
    return values


def dropout(values: Tensor, rate: float, *, training: bool) -> Tensor:
    """Sets each value to 0 with probability ``rate`` and scales the others to keep the mean.

    On a CPU by `Masks`, elsewhere torch's.
    """
    if not training or rate == 0.0 or values.numel() == 0:
        return values
    if not _is_cpu(values.device):
        return F.dropout(values, rate)
    keep = Masks(rate, values.device).draw(*values.shape)
    return cast("Tensor", _Dropped.apply(values, keep, kept_scale(rate, values.device)))


class _Dropped(torch.autograd.Function):
    """x times a scale where kept, 0 elsewhere."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return mask_(values * scale, keep)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return _Dropped.apply(grads[0], keep, ctx.scale), None, None


def _dropped(rate: float) -> int:
    """How many of the levels are dropped."""
    return min(round(rate * _LEVELS), _LEVELS - 1)


def _is_cpu(device: torch.device) -> bool:
    return device.type == "cpu"


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
