"""The interface of schedules: steps, parts, and streams of batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """The examples of one task in a step. ``examples`` are row numbers of the task's training split, shape (E,)."""

    task: str
    examples: Indices

    def slice(self, rank: int, ranks: int, micro: int, micros: int) -> "Part":
        """The share of this part that ``rank`` of ``ranks`` runs as piece ``micro`` of ``micros``.

        Shares are contiguous, differ by at most one example, and together are the part; one may be empty.
        """
        index, count = rank * micros + micro, ranks * micros
        size = len(self.examples)
        return Part(self.task, self.examples[index * size // count : (index + 1) * size // count])


@dataclass(frozen=True)
class Step:
    """One update: its 0-based number and epoch in the stage, and its parts, no two of the same task."""

    index: int
    epoch: int
    parts: tuple[Part, ...]


class Schedule(Protocol):
    """A pure function from the 0-based step of a stage to its parts."""

    @property
    def epoch_steps(self) -> int:
        """Steps of one epoch."""
        ...

    @property
    def epoch_examples(self) -> Mapping[str, int]:
        """Examples of each task in the first epoch; where tasks are drawn, the expected ones of a mean epoch.

        Later epochs may differ by what short batches at the end of a pass lack.
        """
        ...

    def step(self, index: int) -> Step:
        """The step at ``index``, whatever was asked before. Raises IndexError below 0."""
        ...


@dataclass(frozen=True)
class StreamOptions:
    """How the examples of one task are ordered into batches.

    Args:
        batch_size: Examples of a batch; the last batch of a pass may hold fewer.
        subsample: Share (below 1) or number of the rows in use; None: all.
        epoch_examples: Examples that count as one epoch; None: all rows in use.
        length_window: Batches that are sorted together by length; 0: none.
        groups: Each row's class, or bucket of its score, shape (rows,), to draw all of them equally; None: as they are.
    """

    batch_size: int
    subsample: float | None = None
    epoch_examples: int | None = None
    length_window: int = 0
    groups: Sequence[int] | NDArray[np.integer] | None = None


def epoch_and_place(index: int, epoch_steps: int) -> tuple[int, int]:
    """The epoch of the step at ``index``, and the step's place in it. Raises IndexError below 0."""
    if index < 0:
        raise IndexError(f"step {index}; the first is 0")
    return divmod(index, epoch_steps)
