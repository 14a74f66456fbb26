"""Attention over packed sequences, registered with transformers' attention interface.

transformers hands the queries, keys and values of all T packed tokens as ``(1, N, T, d)``; sequences must not see each
other. `PackedLayout` groups sequences of nearly equal lengths into buckets. Tokens are gathered once into bucket
order, each bucket is one dense product over ``(n, N, L, L)`` with the few padded keys masked, and the results are
gathered back. At 25 to 32 tokens a text this wastes little, needs no custom kernel, and its backward is plain matrix
products, where the CPU's fused kernel is slow.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from manyhead.encoder.dropout import dropout as drop
from manyhead.packed import offsets_of

NAME = "manyhead_packed"
"""Name of the attention implementation that encoders are loaded with."""

BUCKET_PAIRS = 5000
"""What a bucket costs by itself, in pairs of tokens that attend to each other: the launches of its operations."""

WIDTHS, COUNTS = 8, 4
"""Buckets are rounded up to a multiple of these tokens and sequences. The processor's library keeps a kernel for each
shape of a product, and the allocator a gap for each size: few shapes are few of both. Where all lengths are the same,
nothing is moved at all."""

_FAR = -1e4
"""Added to scores outside a window: no weight is left of them, but where a padded query has nothing else to see."""

_CUTS = 32
"""Lengths between which sequences may be parted into buckets, at most about."""


@dataclass(frozen=True)
class Bucket:
    """``count`` sequences padded to ``width`` tokens, at ``start`` of the bucket-ordered tokens.

    ``mask`` (count, 1, 1, width) is 0 on tokens and -inf on padding; None where no sequence is padded. The last few
    sequences may be none at all: they hold no token.
    """

    start: int
    count: int
    width: int
    mask: Tensor | None


@dataclass(frozen=True)
class Gather:
    """How T packed tokens and P bucket positions map to each other.

    ``padded_from`` (P,): the token behind each position, 0 at padding. ``packed_from`` (T,): each token's position.
    ``padding``: the positions that hold no token; ``empty``: rows among the T that hold none, if there are any.
    """

    padded_from: Tensor
    packed_from: Tensor
    padding: Tensor
    empty: Tensor | None = None


@dataclass(frozen=True)
class PackedLayout:
    """The buckets of a packed batch, and the gathers into and out of them; None where packed order is bucket order.

    ``received`` collects, if not None, the attention each token receives in each layer: tensors (T,).
    """

    buckets: tuple[Bucket, ...]
    gather: Gather | None
    received: list[Tensor] | None = field(default=None)


def rounded(size: int, step: int) -> int:
    """The next multiple of ``step``."""
    return size + -size % step


def bucket_widths(lengths: Sequence[int]) -> list[int]:
    """The lengths up to which sequences go into the first, second, ... bucket, so that all of them cost least.

    A bucket of n sequences of w tokens, both rounded up, costs n w^2 and `BUCKET_PAIRS`.
    """
    step = -(-max(lengths) // _CUTS)
    counts: dict[int, int] = {}
    widest: dict[int, int] = {}
    for length in lengths:
        group = -(-length // step)
        counts[group] = counts.get(group, 0) + 1
        widest[group] = max(length, widest.get(group, 0))
    groups = sorted(counts)
    # The cheapest way to bucket the first groups: its cost, and where its last bucket begins.
    best: list[tuple[int, int]] = [(0, 0)]
    for stop, group in enumerate(groups, 1):
        sequences, options = 0, []
        for start in range(stop - 1, -1, -1):
            sequences += counts[groups[start]]
            pairs = rounded(sequences, COUNTS) * rounded(widest[group], WIDTHS) ** 2
            options.append((best[start][0] + pairs + BUCKET_PAIRS, start))
        best.append(min(options))
    widths: list[int] = []
    stop = len(groups)
    while stop:
        widths.append(widest[groups[stop - 1]])
        stop = best[stop][1]
    return widths[::-1]


def packed_layout(lengths: Sequence[int], device: torch.device, *, capture: bool = False) -> PackedLayout:
    """Groups sequences of ``lengths`` into buckets. With ``capture``, received attention is collected."""
    widths = bucket_widths(lengths)
    count_step, width_step = (1, 1) if min(lengths) == max(lengths) else (COUNTS, WIDTHS)
    groups: dict[int, list[int]] = {}
    for sequence, length in enumerate(lengths):
        groups.setdefault(bisect_left(widths, length), []).append(sequence)
    offsets = offsets_of(lengths)
    starts_at = torch.tensor(offsets[:-1])
    all_lengths = torch.tensor(list(lengths))
    buckets: list[Bucket] = []
    sources: list[Tensor] = []
    valid: list[Tensor] = []
    position = 0
    for _, members in sorted(groups.items()):
        extra = -len(members) % count_step
        member_lengths = F.pad(all_lengths[members], (0, extra))
        width = rounded(max(lengths[each] for each in members), width_step)
        columns = torch.arange(width)
        real = columns < member_lengths[:, None]
        sources.append(torch.where(real, F.pad(starts_at[members], (0, extra))[:, None] + columns, 0).flatten())
        valid.append(real.flatten())
        mask = None
        if not bool(real.all()):
            # Sequences that are none see all their keys: they must see something.
            hidden = ~real & (member_lengths > 0)[:, None]
            mask = torch.zeros(real.shape).masked_fill(hidden, -math.inf)[:, None, None, :].to(device)
        buckets.append(Bucket(position, len(member_lengths), width, mask))
        position += len(member_lengths) * width
    source, is_real = torch.cat(sources), torch.cat(valid)
    received: list[Tensor] | None = [] if capture else None
    if position == offsets[-1] and torch.equal(source, torch.arange(position)):
        return PackedLayout(tuple(buckets), None, received)
    back = torch.empty(offsets[-1], dtype=torch.int64)
    back[source[is_real]] = torch.arange(position)[is_real]
    gather = Gather(source.to(device), back.to(device), (~is_real).nonzero().flatten().to(device))
    return PackedLayout(tuple(buckets), gather, received)


def pad(rows: Tensor, layout: PackedLayout) -> Tensor:
    """Packed rows to bucket order, ``(T, F)`` to ``(P, F)``; padding repeats token 0."""
    return rows if layout.gather is None else rows.index_select(0, layout.gather.padded_from)


def unpad(rows: Tensor, layout: PackedLayout) -> Tensor:
    """Rows in bucket order back to packed order, ``(P, F)`` to ``(T, F)``.

    It is the gradient of `pad` as well: each token has one place in a bucket, and the gradient of padding is exactly 0,
    since the mask removes it as a key and no padded query is read back. Empty rows are 0.
    """
    if layout.gather is None:
        return rows
    found = rows.index_select(0, layout.gather.packed_from)
    return found if layout.gather.empty is None else found.index_fill_(0, layout.gather.empty, 0.0)


def unpad_backward(grads: Tensor, layout: PackedLayout) -> Tensor:
    """The gradient (P, F) of what `unpad` was given, from that (T, F) of what it gave; 0 at padding."""
    if layout.gather is None:
        return grads
    return pad(grads, layout).index_fill_(0, layout.gather.padding, 0.0)


class _Pad(torch.autograd.Function):
    """`pad` with a gradient that gathers instead of scattering."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, layout: PackedLayout) -> Tensor:
        ctx.layout = layout
        return pad(rows, layout)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return unpad(grads[0], ctx.layout), None


class _Unpad(torch.autograd.Function):
    """`unpad` with a gradient that gathers instead of scattering."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, layout: PackedLayout) -> Tensor:
        ctx.layout = layout
        return unpad(rows, layout)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return unpad_backward(grads[0], ctx.layout), None


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_layout: PackedLayout,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """The attention function given to transformers: ``query`` (1, N, T, d) to an output of (1, T, N, d).

    ``packed_layout`` comes through the encoder's keyword arguments. ``sliding_window``: tokens this far apart do not
    see each other (ModernBERT's local layers).
    """
    del attention_mask
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    heads, width = query.shape[1], query.shape[3]
    rows = [
        cast("Tensor", _Pad.apply(tensor[0].transpose(0, 1).reshape(-1, heads * width), packed_layout))
        for tensor in (query, key, value)
    ]
    sizes = [bucket.count * bucket.width for bucket in packed_layout.buckets]
    outputs: list[Tensor] = []
    received: list[Tensor] = []
    for bucket, *parts in zip(packed_layout.buckets, *(row.split(sizes) for row in rows), strict=True):
        q, k, v = (part.view(bucket.count, bucket.width, heads, width).transpose(1, 2) for part in parts)
        scores = torch.matmul(q * scale, k.transpose(2, 3))
        if bucket.mask is not None:
            scores = scores + bucket.mask.to(scores.dtype)
        if sliding_window is not None and bucket.width > sliding_window:
            scores = scores + _window_mask(bucket.width, sliding_window, scores)
        weights = scores.softmax(-1)
        if packed_layout.received is not None:
            received.append(_received(weights, bucket))
        weights = drop(weights, dropout, training=module.training)
        outputs.append(torch.matmul(weights, v).transpose(1, 2).reshape(-1, heads * width))
    output = cast("Tensor", _Unpad.apply(outputs[0] if len(outputs) == 1 else torch.cat(outputs), packed_layout))
    if packed_layout.received is not None:
        flat = torch.cat(received)
        gather = packed_layout.gather
        packed_layout.received.append(flat if gather is None else flat[gather.packed_from])
    return output.view(1, -1, heads, width), None


def _window_mask(width: int, window: int, like: Tensor) -> Tensor:
    positions = torch.arange(width, device=like.device)
    apart = (positions[:, None] - positions[None, :]).abs() >= window
    return torch.zeros(width, width, dtype=like.dtype, device=like.device).masked_fill(apart, _FAR)


def _received(weights: Tensor, bucket: Bucket) -> Tensor:
    """Attention each bucket position receives, averaged over heads and real queries: (count * width,)."""
    if bucket.mask is None:
        return weights.mean(dim=(1, 2)).flatten()
    real = (bucket.mask == 0).to(weights.dtype).transpose(2, 3)
    per_head = (weights * real).sum(2) / real.sum(2)
    return per_head.mean(1).flatten()


AttentionInterface.register(NAME, packed_attention)
