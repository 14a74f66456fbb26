"""Dropout whose mask is cheap to draw on a CPU, and how it replaces torch's inside an encoder."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

_LEVELS = 1 << 15
_HALVED = 1 << 16
_SAME_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def keep_mask(rate: float, out: Tensor) -> Tensor:
    """Draws into ``out``, int16, which values are kept, with probability 1 - ``rate``: all bits set, or none.

    torch draws a CPU mask one value at a time. Here one draw of its generator is the seed of another (SFC64), of which
    each 64 bits give four values' 15-bit levels, so ``rate`` is rounded to a multiple of 2^-15.
    """
    if not _is_cpu(out.device):
        return out.bernoulli_(1 - rate).neg_()
    _fill_with_bits(out.view(-1).numpy(), int(torch.empty((), dtype=torch.int64).random_()))
    # The sign of (level - kept), spread over all bits.
    return out.bitwise_right_shift_(1).sub_(_LEVELS // 2 - _dropped(rate)).bitwise_right_shift_(15)


def _fill_with_bits(out: NDArray[np.int16], seed: int) -> None:
    """Fills ``out`` with random bits; much of it in two halves, by two threads where torch has as many."""
    if len(out) < _HALVED:
        _fill(out, np.random.SFC64(seed))
        return
    middle = len(out) // 8 * 4
    halves = [(out[:middle], np.random.SFC64((seed, 0))), (out[middle:], np.random.SFC64((seed, 1)))]
    if torch.get_num_threads() == 1:
        for half in halves:
            _fill(*half)
        return
    first = _second_thread(os.getpid()).submit(_fill, *halves[0])
    _fill(*halves[1])
    first.result()


def _fill(out: NDArray[np.int16], bits: np.random.SFC64) -> None:
    out[:] = bits.random_raw(-(-len(out) // 4)).view(np.int16)[: len(out)]


@cache
def _second_thread(process: int) -> ThreadPoolExecutor:
    """A thread of this ``process``: one forked from it has none of its threads."""
    del process
    return ThreadPoolExecutor(1, "manyhead-masks")


def kept_scale(rate: float, device: torch.device) -> float:
    """What kept values are scaled by, so that the mean stays."""
    return _LEVELS / (_LEVELS - _dropped(rate)) if _is_cpu(device) else 1 / (1 - rate)


def mask_(values: Tensor, keep: Tensor) -> Tensor:
    """Sets to 0, in place, what a mask drops."""
    kind = _SAME_SIZE[values.element_size()]
    values.view(kind).bitwise_and_(keep.to(kind))
    return values


def masked(values: Tensor, keep: Tensor) -> Tensor:
    """As `mask_`, without changing ``values``."""
    kind = _SAME_SIZE[values.element_size()]
    return values.view(kind).bitwise_and(keep.to(kind)).view(values.dtype)


def dropout(values: Tensor, rate: float, *, training: bool) -> Tensor:
    """Sets each value to 0 with probability ``rate`` and scales the others to keep the mean.

    On a CPU by `keep_mask`, elsewhere torch's.
    """
    if not training or rate == 0.0 or values.numel() == 0:
        return values
    if not _is_cpu(values.device):
        return F.dropout(values, rate)
    keep = keep_mask(rate, torch.empty(values.shape, dtype=torch.int16))
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
