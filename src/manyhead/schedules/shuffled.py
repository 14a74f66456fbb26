"""Every batch of every task once an epoch, the tasks in random order."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from manyhead.schedules import ShuffledSchedule
from manyhead.schedules.base import Part, Step, epoch_and_place
from manyhead.schedules.draws import Latest, earlier_occurrences, permutations
from manyhead.schedules.streams import BatchStream


class Shuffled:
    """One epoch: an epoch of every task, their batches mixed at random. One step: one batch of one task.

    Each task's batches come in the order of its stream (which is random itself); only which task is next is drawn,
    from (seed, stage, epoch).
    """

    def __init__(self, streams: Mapping[str, BatchStream], seed: int, stage: int | str) -> None:
        self._streams = tuple(streams.items())
        self._key = ("shuffled", seed, stage)
        turns = np.arange(len(streams)).astype(np.min_scalar_type(len(streams)))
        self._turns = np.repeat(turns, [stream.epoch_batches for stream in streams.values()])
        self._epoch = Latest(self._drawn_epoch)

    @property
    def epoch_steps(self) -> int:
        """The epoch batches of all tasks."""
        return len(self._turns)

    @property
    def epoch_examples(self) -> dict[str, int]:
        """Examples of each task in the first epoch."""
        return {task: stream.examples(0, stream.epoch_batches) for task, stream in self._streams}

    def step(self, index: int) -> Step:
        """The step at ``index``, a part of one task."""
        epoch, place = epoch_and_place(index, self.epoch_steps)
        turns, earlier = self._epoch(epoch)
        task, stream = self._streams[int(turns[place])]
        batch = epoch * stream.epoch_batches + int(earlier[place])
        return Step(index, epoch, (Part(task, stream.batch(batch)),))

    def _drawn_epoch(self, epoch: int) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """Of each step of the epoch, shape (epoch_steps,): the task, and how many steps of the epoch it had before."""
        turns = self._turns[permutations(len(self._turns), self._key, epoch)[0]]
        return turns, earlier_occurrences(turns)


def build(
    options: ShuffledSchedule, streams: Mapping[str, BatchStream], *, seed: int, stage: int | str, epochs: int
) -> Shuffled:
    """A `Shuffled`."""
    del options, epochs
    return Shuffled(streams, seed, stage)
