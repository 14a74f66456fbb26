"""Batches in a fixed order of tasks."""

from collections.abc import Mapping

from manyhead.schedules import RoundRobinSchedule
from manyhead.schedules.base import Part, Schedule, Step, epoch_and_place
from manyhead.schedules.lockstep import circular, largest
from manyhead.schedules.streams import BatchStream


class RoundRobin:
    """One step: one batch of one task, the tasks in turn. One epoch: cycles until the largest task is exhausted.

    Smaller tasks start again when they are exhausted and go on across epochs. Sizes are compared in batches.
    """

    def __init__(self, streams: Mapping[str, BatchStream]) -> None:
        self._streams = tuple(streams.items())
        self._cycles = largest(streams)

    @property
    def epoch_steps(self) -> int:
        """A step for each task in each cycle."""
        return self._cycles * len(self._streams)

    @property
    def epoch_examples(self) -> dict[str, int]:
        """Examples of each task in the first epoch."""
        return {task: stream.examples(0, self._cycles) for task, stream in self._streams}

    def step(self, index: int) -> Step:
        """The step at ``index``, a part of one task."""
        epoch, _ = epoch_and_place(index, self.epoch_steps)
        cycle, turn = divmod(index, len(self._streams))
        task, stream = self._streams[turn]
        return Step(index, epoch, (Part(task, stream.batch(cycle)),))


def build(
    options: RoundRobinSchedule, streams: Mapping[str, BatchStream], *, seed: int, stage: int | str, epochs: int
) -> Schedule:
    """A `RoundRobin`; with ``update: cycle`` one step is a whole cycle, which is the interleaved schedule (S2)."""
    del seed, stage, epochs
    return circular(streams) if options.update == "cycle" else RoundRobin(streams)
