"""Packed batches of few sizes, as tensors alone: what a step on a device reads, in memory that stays where it is.

Each task's tokens are rounded up. What is added are sequences of no example behind the task's own: they are attended to
by themselves alone, nothing reads their states, and their gradients are exactly 0. So batches of one `Shape` differ in
the values of tensors, not in their sizes.

Axes: T tokens and S sequences, those that were added included; B sequences of examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manyhead.encoder.varlen_attention import Sequences
from manyhead.packed import PackedBatch, Route

SMALLEST_STEP = 64
"""Numbers of tokens are rounded up to multiples of this at least,"""

STEPS = 16
"""and of their power of two through this: to 6 % more at most."""


class PartShape(NamedTuple):
    """A task's ``examples`` of ``each`` sequences, its ``tokens`` rounded up, and the number of sequences ``added``."""

    task: str
    examples: int
    each: int
    tokens: int
    added: int


@dataclass(frozen=True)
class Shape:
    """The sizes of a padded batch. No sequence is longer than ``longest``."""

    parts: tuple[PartShape, ...]
    longest: int

    @property
    def tokens(self) -> int:
        """T."""
        return sum(part.tokens for part in self.parts)

    @property
    def sequences(self) -> int:
        """S."""
        return sum(part.examples * part.each + part.added for part in self.parts)

    @property
    def own_sequences(self) -> int:
        """B."""
        return sum(part.examples * part.each for part in self.parts)

    @property
    def routes(self) -> tuple[Route, ...]:
        """The tokens of each task."""
        found: list[Route] = []
        start = 0
        for part in self.parts:
            found.append(Route(part.task, start, start + part.tokens))
            start += part.tokens
        return tuple(found)

    @property
    def spans(self) -> dict[str, slice]:
        """Each task's sequences among the B."""
        found: dict[str, slice] = {}
        start = 0
        for part in self.parts:
            found[part.task] = slice(start, start + part.examples * part.each)
            start += part.examples * part.each
        return found

    @property
    def own(self) -> list[int]:
        """Which (B,) of the S sequences are of examples."""
        found: list[int] = []
        start = 0
        for part in self.parts:
            found += range(start, start + part.examples * part.each)
            start += part.examples * part.each + part.added
        return found


def rounded_up(tokens: int) -> int:
    """The number that ``tokens`` are rounded up to."""
    step = max(SMALLEST_STEP, (1 << max(0, tokens.bit_length() - 1)) // STEPS)
    return -(-tokens // step) * step


def shape_of(batch: PackedBatch, longest: int) -> Shape:
    """The shape of a batch. Raises ValueError where a sequence is longer than ``longest``."""
    if max(batch.lengths) > longest:
        raise ValueError(f"a sequence of {max(batch.lengths)} tokens, the longest may have {longest}")
    parts: list[PartShape] = []
    for part, route in zip(batch.parts, batch.routes, strict=True):
        tokens = rounded_up(route.stop - route.start)
        # As many as the most that rounding can add, so that their number follows from the number of tokens.
        step = max(SMALLEST_STEP, (1 << (tokens.bit_length() - 1)) // STEPS)
        parts.append(PartShape(part.task, part.n_examples, part.sequences.shape[1], tokens, -(-step // longest)))
    return Shape(tuple(parts), longest)


@dataclass(frozen=True)
class PaddedBatch:
    """A batch of ``shape``.

    ``input_ids``, ``segment_ids``, ``positions`` and ``sequence_of`` (T,) of the tokens, the last among the S
    sequences; ``own`` (B,) of these; ``rows`` (E, n) by task: an example's sequences among the B; ``targets`` (E,) by
    task; ``orders`` (K, K) of the tasks, for surgery.
    """

    shape: Shape
    input_ids: Tensor
    segment_ids: Tensor
    positions: Tensor
    sequence_of: Tensor
    own: Tensor
    sequences: Sequences
    rows: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    orders: Tensor

    @property
    def first(self) -> Tensor:
        """The first token (B,) of each sequence of an example."""
        return self.sequences.offsets.index_select(0, self.own).long()


class Buffers:
    """Memory on ``device`` for batches of one shape, and the batch whose tensors are parts of it.

    A batch arrives in two copies, of whole numbers and of fp32 ones, that nobody waits for.
    """

    def __init__(self, shape: Shape, classes: Mapping[str, bool], device: torch.device) -> None:
        """``classes``: whether the targets of a task are classes, or else scores."""
        tokens, own = shape.tokens, shape.own_sequences
        kinds = {part.task: classes[part.task] for part in shape.parts}
        self._shape = shape
        self._sizes = [tokens, tokens, tokens, tokens, own, shape.sequences + 1, len(kinds) ** 2]
        self._sizes += [part.examples * part.each for part in shape.parts]
        self._sizes += [part.examples for part in shape.parts if kinds[part.task]]
        self._score_sizes = [part.examples for part in shape.parts if not kinds[part.task]]
        self._kinds = kinds
        self._numbers = torch.zeros(sum(self._sizes), dtype=torch.int64, device=device)
        self._scores = torch.zeros(sum(self._score_sizes), device=device)
        self._offsets = torch.zeros(shape.sequences + 1, dtype=torch.int32, device=device)
        self.batch = self._batch()

    def fill(self, batch: PackedBatch, targets: Mapping[str, Tensor], orders: Tensor) -> None:
        """Puts a batch of the shape here, its targets (E,) by task and the ``orders``; all of them on the CPU."""
        counts = _counts(batch, self._shape)
        offsets = np.zeros(len(counts) + 1, np.int64)
        counts.cumsum(out=offsets[1:])
        # numpy's, since torch's wait for threads, which takes longer than the work.
        numbers = [
            _spread(batch.input_ids, batch, self._shape),
            _spread(batch.segment_ids, batch, self._shape),
            np.arange(self._shape.tokens) - offsets[:-1].repeat(counts),
            np.arange(len(counts)).repeat(counts),
            np.array(self._shape.own),
            offsets,
            orders.flatten().numpy(),
            *(part.sequences.flatten().numpy() for part in batch.parts),
            *(targets[task].long().numpy() for task, is_classes in self._kinds.items() if is_classes),
        ]
        scores = [targets[task].float() for task, is_classes in self._kinds.items() if not is_classes]
        _send(torch.from_numpy(np.concatenate(numbers)), self._numbers)
        if scores:
            _send(torch.cat(scores), self._scores)
        self._offsets.copy_(self._numbers.split(self._sizes)[5])

    def _batch(self) -> PaddedBatch:
        ids, segments, positions, sequence_of, own, _, orders, *rest = self._numbers.split(self._sizes)
        parts = self._shape.parts
        rows = {part.task: each.view(part.examples, part.each) for part, each in zip(parts, rest, strict=False)}
        classes, scores = iter(rest[len(parts) :]), iter(self._scores.split(self._score_sizes))
        targets = {task: next(classes if is_classes else scores) for task, is_classes in self._kinds.items()}
        return PaddedBatch(
            self._shape,
            ids,
            segments,
            positions,
            sequence_of,
            own,
            Sequences(self._offsets, self._shape.longest),
            rows,
            targets,
            orders.view(len(parts), len(parts)),
        )


def _counts(batch: PackedBatch, shape: Shape) -> NDArray[np.int64]:
    """Tokens of all S sequences: what was added to a task fills some, and leaves others empty."""
    found: list[int] = []
    for part, route, wanted in zip(batch.parts, batch.routes, shape.parts, strict=True):
        found += batch.lengths[part.start : part.stop]
        left = wanted.tokens - (route.stop - route.start)
        for _ in range(wanted.added):
            found.append(min(left, shape.longest))
            left -= found[-1]
    if sum(found) != shape.tokens:
        raise ValueError("the batch is not of the shape")
    return np.array(found)


def _spread(values: Tensor, batch: PackedBatch, shape: Shape) -> NDArray[np.int64]:
    """Values of the batch's tokens as values (T,), 0 where tokens were added."""
    spread = np.zeros(shape.tokens, np.int64)
    given = values.numpy()
    for route, wide in zip(batch.routes, shape.routes, strict=True):
        spread[wide.start : wide.start + route.stop - route.start] = given[route.start : route.stop]
    return spread


def _send(values: Tensor, place: Tensor) -> None:
    if place.is_cuda:
        values = values.pin_memory()  # held by its allocator until the copy is done
    place.copy_(values, non_blocking=True)
