"""Attention over packed sequences with its backward written out, for a layer that is one node of the graph.

Axes: T packed tokens, D width, N heads, d = D / N; in a bucket n sequences of w tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from manyhead.encoder.attention import PackedLayout, pad, unpad, unpad_backward
from manyhead.encoder.dropout import keep_mask, kept_scale, mask_, masked

aten = torch.ops.aten

KEPT = 3
"""Tensors that `attend` keeps for each bucket."""


@dataclass(frozen=True)
class Attention:
    """Attention of ``heads`` heads on ``layout``, with dropout of probabilities at ``rate``."""

    layout: PackedLayout
    heads: int
    rate: float
    softmax_dtype: torch.dtype

    def attend(self, qkv: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """Queries, keys and values (T, 3D), side by side, to the context (T, D).

        Keeps for each bucket the states (3, nN, w, d), probabilities (nN, w, w) and dropout's mask of them. Queries
        come with the factor 1 / sqrt(d), values with dropout's: that is less work than to scale what is (w, w).
        """
        kept: list[Tensor | None] = []
        contexts: list[Tensor] = []
        for bucket, rows in zip(self.layout.buckets, self._by_bucket(pad(qkv, self.layout)), strict=True):
            by_head = rows.view(bucket.count, bucket.width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            matrices = bucket.count * self.heads
            states = by_head.reshape(3, matrices, bucket.width, -1)
            query, key, value = states.unbind()
            query.mul_(query.shape[2] ** -0.5)
            scores = torch.bmm(query, key.transpose(1, 2)).to(self.softmax_dtype)
            if bucket.mask is not None:
                scores.view(bucket.count, self.heads, bucket.width, bucket.width).add_(bucket.mask)
            weights = used = scores.softmax(-1).to(qkv.dtype)
            keep = None
            if self.rate:
                value.mul_(kept_scale(self.rate, value.device))
                keep = keep_mask(self.rate, torch.empty_like(weights, dtype=torch.int16))
                used = masked(weights, keep)
            context = torch.bmm(used, value).view(bucket.count, self.heads, bucket.width, -1)
            contexts.append(context.transpose(1, 2).reshape(bucket.count * bucket.width, -1))
            kept += [states, weights, keep]
        return unpad(_joined(contexts), self.layout), kept

    def backward(self, grads: Tensor, kept: Sequence[Tensor | None]) -> Tensor:
        """The gradient of queries, keys and values (T, 3D) from that of the context (T, D)."""
        found: list[Tensor] = []
        rows_of = self._by_bucket(unpad_backward(grads, self.layout))
        for number, (bucket, rows) in enumerate(zip(self.layout.buckets, rows_of, strict=True)):
            states, weights, keep = kept[KEPT * number : KEPT * (number + 1)]
            assert states is not None
            assert weights is not None
            query, key, value = states.unbind()
            to_context = rows.view(bucket.count, bucket.width, self.heads, -1).transpose(1, 2)
            to_context = to_context.reshape(query.shape)
            to_weights = torch.bmm(to_context, value.transpose(1, 2))
            used = weights
            if keep is not None:
                used = masked(weights, keep)
                to_weights = mask_(to_weights, keep)
            wide = weights.to(self.softmax_dtype)
            to_scores = aten._softmax_backward_data(to_weights.to(wide.dtype), wide, -1, wide.dtype).to(weights.dtype)
            to_states = torch.empty_like(states)
            torch.bmm(to_scores, key, out=to_states[0]).mul_(query.shape[2] ** -0.5)
            torch.bmm(to_scores.transpose(1, 2), query, out=to_states[1])
            torch.bmm(used.transpose(1, 2), to_context, out=to_states[2])
            if keep is not None:
                to_states[2].mul_(kept_scale(self.rate, value.device))
            by_head = to_states.view(3, bucket.count, self.heads, bucket.width, -1)
            found.append(by_head.permute(1, 3, 0, 2, 4).reshape(bucket.count * bucket.width, -1))
        return unpad(_joined(found), self.layout)

    def _by_bucket(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows.split([bucket.count * bucket.width for bucket in self.layout.buckets])


def _joined(rows: Sequence[Tensor]) -> Tensor:
    return rows[0] if len(rows) == 1 else torch.cat(list(rows))
