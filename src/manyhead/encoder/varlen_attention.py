"""Attention over packed sequences by kernels that take their offsets: nothing is padded, nothing is read on the host.

The kernels are torch's own and run on CUDA: ``efficient`` in fp32 or bf16, ``flash`` in bf16 alone, both with dropout
(the public ``torch.nn.attention.varlen`` has none). `reference` is the same written out, sequence after sequence, for
any device. None of the CUDA kernels has been measured.

Axes: T packed tokens, D width, N heads, d = D / N, S sequences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from manyhead.encoder.dropout import keep_mask, kept_scale, mask_

aten = torch.ops.aten

Saved = Sequence[Tensor | None]
"""What a kernel's forward keeps for its backward."""


@dataclass(frozen=True)
class Sequences:
    """Where the sequences of a packed batch are: ``offsets`` (S + 1,) int32 on its device, from 0 to T.

    A sequence may be empty. None is longer than ``longest``, which is a bound: a constant serves all batches.
    """

    offsets: Tensor
    longest: int


class Heads(NamedTuple):
    """Queries, keys and values, (T, N, d) each."""

    query: Tensor
    key: Tensor
    value: Tensor


class Kernel(Protocol):
    """Attention within each sequence, with dropout of probabilities at ``rate``, and its gradient."""

    def forward(self, heads: Heads, sequences: Sequences, rate: float) -> tuple[Tensor, Saved]:
        """The context (T, N, d), and what the backward needs beside the heads."""
        ...

    def backward(
        self, grads: Tensor, heads: Heads, sequences: Sequences, rate: float, saved: Saved
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients (T, N, d) of queries, keys and values from that of the context."""
        ...


@dataclass(frozen=True)
class VarlenAttention:
    """As `fused_attention.Attention`, on `Sequences`. Softmax is fp32 whatever ``softmax_dtype``."""

    layout: Sequences
    heads: int
    rate: float
    softmax_dtype: torch.dtype
    kernel: Kernel

    def attend(self, qkv: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """Queries, keys and values (T, 3D), side by side, to the context (T, D)."""
        context, saved = self.kernel.forward(self._split(qkv), self.layout, self.rate)
        return context.reshape(len(qkv), -1), [qkv, *saved]

    def backward(self, grads: Tensor, kept: Sequence[Tensor | None]) -> Tensor:
        """The gradient of queries, keys and values (T, 3D) from that of the context (T, D)."""
        qkv, *saved = kept
        assert qkv is not None
        to_context = grads.view(len(grads), self.heads, -1)
        found = self.kernel.backward(to_context, self._split(qkv), self.layout, self.rate, saved)
        return torch.stack(found, dim=1).view(len(qkv), -1)

    def _split(self, qkv: Tensor) -> Heads:
        return Heads(*qkv.view(len(qkv), 3, self.heads, -1).unbind(1))


class Efficient:
    """torch's memory-efficient kernel, with offsets."""

    def forward(self, heads: Heads, sequences: Sequences, rate: float) -> tuple[Tensor, Saved]:
        """See `Kernel`."""
        query, key, value = (each[None] for each in heads)
        offsets, longest = sequences.offsets, sequences.longest
        context, sums, seed, offset, *_ = aten._efficient_attention_forward(
            query, key, value, None, offsets, offsets, longest, longest, rate, 0, compute_log_sumexp=True
        )
        return context[0], [context, sums, seed, offset]

    def backward(
        self, grads: Tensor, heads: Heads, sequences: Sequences, rate: float, saved: Saved
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernel`."""
        query, key, value = (each[None] for each in heads)
        offsets, longest = sequences.offsets, sequences.longest
        context, sums, seed, offset = saved
        found = aten._efficient_attention_backward(
            grads[None], query, key, value, None, context, offsets, offsets, longest, longest, sums, rate, seed,
            offset, 0, False,
        )  # fmt: skip
        return found[0][0], found[1][0], found[2][0]


class Flash:
    """torch's FlashAttention kernel, with offsets; bf16 and fp16 alone."""

    def forward(self, heads: Heads, sequences: Sequences, rate: float) -> tuple[Tensor, Saved]:
        """See `Kernel`."""
        offsets, longest = sequences.offsets, sequences.longest
        context, sums, state, unused, _ = aten._flash_attention_forward(
            *heads, offsets, offsets, longest, longest, rate, False, False
        )
        return context, [context, sums, state, unused]

    def backward(
        self, grads: Tensor, heads: Heads, sequences: Sequences, rate: float, saved: Saved
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernel`."""
        offsets, longest = sequences.offsets, sequences.longest
        context, sums, state, unused = saved
        return aten._flash_attention_backward(
            grads, *heads, context, sums, offsets, offsets, longest, longest, rate, False, state, unused
        )


class Reference:
    """Each sequence by itself, on any device, read on the host: slow, and easy to follow."""

    def forward(self, heads: Heads, sequences: Sequences, rate: float) -> tuple[Tensor, Saved]:
        """See `Kernel`."""
        context = torch.zeros_like(heads.query)
        saved: list[Tensor | None] = []
        for span in _spans(sequences):
            query, key, value = _own(heads, span)
            weights = _weights(query, key)
            keep = keep_mask(rate, torch.empty_like(weights, dtype=torch.int16)) if rate else None
            context[span] = (_dropped(weights, keep, rate) @ value).transpose(0, 1).to(context.dtype)
            saved.append(keep)
        return context, saved

    def backward(
        self, grads: Tensor, heads: Heads, sequences: Sequences, rate: float, saved: Saved
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernel`."""
        found = Heads(*(torch.zeros_like(each) for each in heads))
        for span, keep in zip(_spans(sequences), saved, strict=True):
            query, key, value = _own(heads, span)
            to_context = grads[span].transpose(0, 1).float()
            weights = _weights(query, key)
            to_weights = _dropped(to_context @ value.transpose(1, 2), keep, rate)
            to_scores = weights * (to_weights - (weights * to_weights).sum(-1, keepdim=True))
            to_scores = to_scores * query.shape[2] ** -0.5
            parts = (
                to_scores @ key,
                to_scores.transpose(1, 2) @ query,
                _dropped(weights, keep, rate).transpose(1, 2) @ to_context,
            )
            for place, part in zip(found, parts, strict=True):
                place[span] = part.transpose(0, 1).to(place.dtype)
        return found.query, found.key, found.value


KERNELS: Mapping[str, Kernel] = {"efficient": Efficient(), "flash": Flash(), "reference": Reference()}
"""The kernels by name."""


def _spans(sequences: Sequences) -> list[slice]:
    """The tokens of the sequences that have any."""
    offsets = sequences.offsets.tolist()
    return [slice(start, stop) for start, stop in pairwise(offsets) if start < stop]


def _own(heads: Heads, span: slice) -> Heads:
    """Those (N, w, d) of one sequence, fp32."""
    return Heads(*(each[span].transpose(0, 1).float() for each in heads))


def _weights(query: Tensor, key: Tensor) -> Tensor:
    return (query @ key.transpose(1, 2) * query.shape[2] ** -0.5).softmax(-1)


def _dropped(values: Tensor, keep: Tensor | None, rate: float) -> Tensor:
    return values if keep is None else mask_(values * kept_scale(rate, values.device), keep)
