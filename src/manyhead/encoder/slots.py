"""Where the tokens of a batch stand among the rows that the layers work on.

Products of ever new sizes cost kernels and memory: a batch's rows are rounded up by empty ones, at the end of it, or of
each of its parts where gradients are taken apart by part. Empty rows are 0 at first and get gradients of 0; what comes
of them in between is never read.

Axes: T packed tokens, R rows, P bucket positions, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from manyhead.encoder.attention import Gather, PackedLayout, rounded
from manyhead.packed import Route

_SHARE = 6
"""Rows are rounded by about 1 / 2^6 of them."""

_LEAST = 16


@dataclass(frozen=True)
class Slots:
    """``count`` rows R, of which ``of_token`` (T,) hold a token; None where all do, in order.

    ``layout`` and ``routes`` are those of the tokens, by rows. A route goes on to the end of its part's empty rows.
    """

    count: int
    of_token: Tensor | None
    layout: PackedLayout
    routes: Sequence[Route]

    def spread(self, states: Tensor) -> Tensor:
        """States (T, D) of tokens to rows (R, D)."""
        return states if self.of_token is None else cast("Tensor", _Spread.apply(states, self))

    def collect(self, rows: Tensor) -> Tensor:
        """Rows (R, D) to the states (T, D) of tokens."""
        return rows if self.of_token is None else cast("Tensor", _Collect.apply(rows, self))


def slots_of(
    layout: PackedLayout, tokens: int, routes: Sequence[Route], *, by_part: bool, device: torch.device
) -> Slots:
    """Rows for ``tokens``; with ``by_part`` each route is rounded up by itself."""
    parts = list(routes) if by_part and routes else [Route("", 0, tokens)]
    sizes = [_size(part.stop - part.start) for part in parts]
    count = sum(sizes)
    if count == tokens:
        return Slots(count, None, layout, routes)
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    of_token = torch.cat(
        [torch.arange(start, start + part.stop - part.start) for start, part in zip(starts, parts, strict=True)]
    )
    by_row = [Route(part.task, start, start + size) for start, size, part in zip(starts, sizes, parts, strict=True)]
    gathered = _by_rows(layout, of_token.to(device), count)
    return Slots(count, of_token.to(device), gathered, by_row if len(parts) == len(routes) else routes)


def _size(tokens: int) -> int:
    step = max(_LEAST, 1 << max(0, tokens.bit_length() - _SHARE))
    return rounded(tokens, step)


def _by_rows(layout: PackedLayout, of_token: Tensor, count: int) -> PackedLayout:
    """The layout of rows, from that of their tokens."""
    tokens = len(of_token)
    gather = layout.gather
    if gather is None:
        whole = torch.arange(tokens, device=of_token.device)
        gather = Gather(whole, whole, whole[:0])
    packed_from = gather.packed_from.new_zeros(count).index_copy_(0, of_token, gather.packed_from)
    is_empty = torch.ones(count, dtype=torch.bool, device=of_token.device).index_fill_(0, of_token, False)
    empty = is_empty.nonzero().flatten()
    return replace(layout, gather=Gather(of_token[gather.padded_from], packed_from, gather.padding, empty))


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, slots: Slots) -> Tensor:
        assert slots.of_token is not None
        ctx.of_token = slots.of_token
        return states.new_zeros(slots.count, states.shape[1]).index_copy_(0, slots.of_token, states)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].index_select(0, ctx.of_token), None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, slots: Slots) -> Tensor:
        assert slots.of_token is not None
        ctx.slots = slots
        return rows.index_select(0, slots.of_token)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        slots: Slots = ctx.slots
        assert slots.of_token is not None
        return grads[0].new_zeros(slots.count, grads[0].shape[1]).index_copy_(0, slots.of_token, grads[0]), None
