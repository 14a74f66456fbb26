"""From token stores to packed batches: the parts of a training step, and length-aware batches for inference."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from manyhead.data.tokens import TokenStore
from manyhead.packed import PackedBatch, PackedPart
from manyhead.schedules.base import Part

INFERENCE_TOKENS = 4096
"""Tokens in a batch of inference, about."""


def pack(parts: Sequence[Part], stores: Mapping[str, TokenStore], *, segment_ids: bool = True) -> PackedBatch:
    """The sequences of ``parts`` end to end, each part's sorted by length. Parts without examples are left out.

    ``stores`` holds each task's tokens. With ``segment_ids`` False all tokens are segment 0.
    """
    ids: list[NDArray[np.integer]] = []
    segments: list[NDArray[np.int64]] = []
    lengths: list[int] = []
    packed: list[PackedPart] = []
    for part in parts:
        if not len(part.examples):
            continue
        store = stores[part.task]
        n = store.sequences_per_example
        rows = (part.examples[:, None] * n + np.arange(n)).reshape(-1)
        part_lengths = (store.offsets[rows + 1] - store.offsets[rows]).astype(np.int64)
        order = np.argsort(part_lengths, kind="stable")
        start = len(lengths)
        ids.append(store.joined(rows[order]))
        sorted_lengths = part_lengths[order]
        segments.append(_segments(sorted_lengths, store.segment_starts[rows[order]]))
        lengths.extend(sorted_lengths.tolist())
        place = np.empty(len(rows), dtype=np.int64)
        place[order] = np.arange(start, len(lengths))
        packed.append(PackedPart(part.task, start, len(lengths), torch.from_numpy(place.reshape(-1, n))))
    input_ids = torch.from_numpy(np.concatenate(ids).astype(np.int64))
    segment = torch.from_numpy(np.concatenate(segments))
    return PackedBatch(input_ids, segment if segment_ids else torch.zeros_like(segment), tuple(lengths), tuple(packed))


def length_batches(store: TokenStore, max_tokens: int = INFERENCE_TOKENS) -> Iterator[NDArray[np.int64]]:
    """All examples of ``store`` in batches of similar lengths and at most ``max_tokens`` tokens (or one example).

    Longest first, so that memory is at its highest at the start.
    """
    lengths = (store.offsets[1:] - store.offsets[:-1]).astype(np.int64)
    tokens = lengths.reshape(-1, store.sequences_per_example).sum(1)
    order = np.argsort(-tokens, kind="stable")
    start, total = 0, 0
    for stop, example in enumerate(order):
        if total and total + tokens[example] > max_tokens:
            yield order[start:stop]
            start, total = stop, 0
        total += int(tokens[example])
    if start < len(order):
        yield order[start:]


def _segments(lengths: NDArray[np.int64], starts: NDArray[np.int32]) -> NDArray[np.int64]:
    """1 from each sequence's segment start on, else 0: (T,)."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    return (within >= np.repeat(starts, lengths)).astype(np.int64)
