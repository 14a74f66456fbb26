"""All of the first task, then all of the second, and so on."""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

from manyhead.errors import Problem, RecipeError
from manyhead.schedules import SequentialSchedule
from manyhead.schedules.base import Part, Step, epoch_and_place
from manyhead.schedules.streams import BatchStream


class Sequential:
    """One epoch: an epoch of the first task, then one of the second, ... One step: one batch of one task.

    S1's base, S2's and S3's baseline. ``streams`` are in the order in which the tasks are trained.
    """

    def __init__(self, streams: Mapping[str, BatchStream]) -> None:
        self._streams = tuple(streams.items())
        self._bounds = tuple(accumulate((stream.epoch_batches for stream in streams.values()), initial=0))

    @property
    def epoch_steps(self) -> int:
        """The epoch batches of all tasks."""
        return self._bounds[-1]

    @property
    def epoch_examples(self) -> dict[str, int]:
        """Examples of each task in the first epoch."""
        return {task: stream.examples(0, stream.epoch_batches) for task, stream in self._streams}

    def step(self, index: int) -> Step:
        """The step at ``index``, a part of one task."""
        epoch, place = epoch_and_place(index, self.epoch_steps)
        turn = bisect_right(self._bounds, place) - 1
        task, stream = self._streams[turn]
        batch = epoch * stream.epoch_batches + place - self._bounds[turn]
        return Step(index, epoch, (Part(task, stream.batch(batch)),))


def build(
    options: SequentialSchedule, streams: Mapping[str, BatchStream], *, seed: int, stage: int | str, epochs: int
) -> Sequential:
    """A `Sequential` in the order of the options. Raises `RecipeError` if that is not an order of all tasks."""
    del seed, epochs
    order = list(streams) if options.order is None else options.order
    if sorted(order) != sorted(streams):
        expected = f"each of {', '.join(streams)} once"
        raise RecipeError([Problem(f"'{', '.join(order)}'", key=f"stages.{stage}.schedule.order", expected=expected)])
    return Sequential({task: streams[task] for task in order})
