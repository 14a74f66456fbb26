"""PackedBatch: sequences end to end, without padding, and which examples of which tasks they belong to.

Axes: T packed tokens, B sequences, E examples (a siamese pair is one example of two sequences).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


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


def offsets_of(lengths: Sequence[int]) -> list[int]:
    """Starts of consecutive runs of ``lengths``, and the end of the last: B + 1 values."""
    offsets = [0]
    for length in lengths:
        offsets.append(offsets[-1] + length)
    return offsets
