"""One batch of each task a step: what parallel, interleaved and round-robin schedules have in common."""

from collections.abc import Mapping
from dataclasses import dataclass

from manyhead.schedules.base import Part, Step, epoch_and_place
from manyhead.schedules.streams import BatchStream


@dataclass(frozen=True)
class Lockstep:
    """One batch of each task a step.

    Epochs have ``epoch_steps`` steps. A task's epoch e (from 0) takes its batches from number e * ``strides[task]``
    on and ends for it after that many: a task of a stride below ``epoch_steps`` drops out of the epoch's last steps.
    """

    streams: Mapping[str, BatchStream]
    epoch_steps: int
    strides: Mapping[str, int]

    @property
    def epoch_examples(self) -> dict[str, int]:
        """Examples of each task in the first epoch."""
        return {
            task: stream.examples(0, min(self.epoch_steps, self.strides[task])) for task, stream in self.streams.items()
        }

    def step(self, index: int) -> Step:
        """The step at ``index``: a part for each task that still takes part in the epoch."""
        epoch, place = epoch_and_place(index, self.epoch_steps)
        parts = tuple(
            Part(task, stream.batch(epoch * self.strides[task] + place))
            for task, stream in self.streams.items()
            if place < self.strides[task]
        )
        return Step(index, epoch, parts)


def largest(streams: Mapping[str, BatchStream]) -> int:
    """The most batches that any task has in its epoch."""
    return max(stream.epoch_batches for stream in streams.values())


def circular(streams: Mapping[str, BatchStream]) -> Lockstep:
    """An epoch lasts as long as the largest task's; the others start again, going on across epochs."""
    steps = largest(streams)
    return Lockstep(streams, steps, dict.fromkeys(streams, steps))
