"""PackedBatch: sequences end to end, without padding, and which examples of which tasks they belong to.

Axes: T packed tokens, B sequences, E examples (a siamese pair is one example of two sequences).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor


class Route(NamedTuple):
    """The tokens ``start`` to ``stop`` of a packed batch belong to sequences of ``task``."""

    task: str
    start: int
    stop: int


@dataclass(frozen=True)
class PackedPart:
    """The sequences of one task in a packed batch, contiguous: rows ``start`` to ``stop`` of the B sequences.

    ``sequences`` (E, n) maps example e of the part to its n sequences, as rows of the whole batch.
    """

    task: str
    start: int
    stop: int
    sequences: Tensor

    @property
    def n_examples(self) -> int:
        """Examples in the part."""
        return self.sequences.shape[0]


@dataclass(frozen=True)
class PackedBatch:
    """Sequences packed end to end.

    ``input_ids``, ``segment_ids`` (T,); ``lengths`` of the B sequences as Python ints; ``parts`` in order, together
    covering all B sequences. Inside a part, sequences are sorted by length, so that attention can run over few runs of
    nearly equal lengths. Raises ValueError where these disagree.
    """

    input_ids: Tensor
    segment_ids: Tensor
    lengths: tuple[int, ...]
    parts: tuple[PackedPart, ...]

    def __post_init__(self) -> None:
        if sum(self.lengths) != self.input_ids.shape[0] or self.input_ids.shape != self.segment_ids.shape:
            raise ValueError("lengths, input_ids and segment_ids disagree")
        if min(self.lengths, default=1) < 1:
            raise ValueError("a sequence has no tokens")
        stops = [0, *(part.stop for part in self.parts)]
        if [part.start for part in self.parts] != stops[:-1] or stops[-1] != len(self.lengths):
            raise ValueError("parts do not cover the sequences in order")

    @property
    def n_tokens(self) -> int:
        """T."""
        return self.input_ids.shape[0]

    @property
    def routes(self) -> tuple[Route, ...]:
        """The tokens of each part, in order; together all T."""
        offsets = offsets_of(self.lengths)
        return tuple(Route(part.task, offsets[part.start], offsets[part.stop]) for part in self.parts)

    def examples_of_tokens(self) -> Tensor:
        """The example (T,) that each token belongs to, counted over all parts in order."""
        examples = torch.empty(len(self.lengths), dtype=torch.int64, device=self.input_ids.device)
        first = 0
        for part in self.parts:
            numbers = torch.arange(first, first + part.n_examples, device=examples.device)
            examples[part.sequences] = numbers[:, None]
            first += part.n_examples
        counts = torch.tensor(self.lengths, device=examples.device)
        return examples.repeat_interleave(counts, output_size=self.n_tokens)

    def only(self, tasks: Collection[str]) -> Self:
        """The parts of ``tasks`` as a batch of their own."""
        parts: list[PackedPart] = []
        tokens: list[slice] = []
        lengths: list[int] = []
        for part, route in zip(self.parts, self.routes, strict=True):
            if part.task not in tasks:
                continue
            start, count = len(lengths), part.stop - part.start
            parts.append(PackedPart(part.task, start, start + count, part.sequences + (start - part.start)))
            tokens.append(slice(route.start, route.stop))
            lengths.extend(self.lengths[part.start : part.stop])
        if len(parts) == len(self.parts):
            return self
        return type(self)(
            torch.cat([self.input_ids[each] for each in tokens]),
            torch.cat([self.segment_ids[each] for each in tokens]),
            tuple(lengths),
            tuple(parts),
        )

    def to(self, device: torch.device) -> Self:
        """The same batch on ``device``."""
        parts = tuple(
            PackedPart(part.task, part.start, part.stop, part.sequences.to(device, non_blocking=True))
            for part in self.parts
        )
        return type(self)(
            self.input_ids.to(device, non_blocking=True),
            self.segment_ids.to(device, non_blocking=True),
            self.lengths,
            parts,
        )


@dataclass(frozen=True)
class Passed:
    """What a packed batch gave, by task: ``outputs`` (E, O) of the head, and the ``vectors`` (E, n, D) that it read."""

    outputs: dict[str, Tensor]
    vectors: dict[str, Tensor]


class PackedModel(Protocol):
    """A multi-task model, as those see it who run it without building it.

    ``autocast`` is the type of the encoder's products, None for that of its weights.
    """

    autocast: torch.dtype | None

    @property
    def width(self) -> int:
        """Width D of the encoder's states."""
        ...

    def run(self, batch: PackedBatch, noise: Tensor | None = None) -> Passed:
        """Runs a batch; ``noise`` (T, D) is added to what the encoder's embedding module gives."""
        ...

    def embed(self, batch: PackedBatch) -> Tensor:
        """Pooled vectors (B, D) of all sequences, fp32."""
        ...

    def token_states(self, batch: PackedBatch) -> Tensor:
        """States (T, D) of the encoder's last layer, fp32."""
        ...

    def word_embeddings(self) -> Tensor:
        """The encoder's word embeddings (V, D)."""
        ...


def offsets_of(lengths: Sequence[int]) -> list[int]:
    """Starts of consecutive runs of ``lengths``, and the end of the last: B + 1 values."""
    offsets = [0]
    for length in lengths:
        offsets.append(offsets[-1] + length)
    return offsets
