"""One task a step, drawn with probability proportional to a power of its size."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from manyhead.schedules import SampledSchedule
from manyhead.schedules.base import Indices, Part, Step, epoch_and_place
from manyhead.schedules.draws import Latest, earlier_occurrences, uniforms
from manyhead.schedules.streams import BatchStream


class Sampled:
    """One step: one batch of one task, drawn. One epoch: as many steps as all tasks' epochs have batches.

    A task with n examples in an epoch of its own is drawn with probability proportional to n^power; the tasks of an
    epoch are drawn together from (seed, stage, epoch). ``powers`` holds the power of each epoch; epochs beyond have
    the last one. Each task goes on in its stream from one draw to the next and across epochs, so its passes are whole
    whatever is drawn.
    """

    def __init__(
        self, streams: Mapping[str, BatchStream], seed: int, stage: int | str, powers: tuple[float, ...]
    ) -> None:
        self._streams = tuple(streams.items())
        self._seed = seed
        self._stage = stage
        self._powers = powers
        self._draws_before = [np.zeros(len(streams), dtype=np.int64)]
        self._epoch = Latest(self._drawn_epoch)

    @property
    def epoch_steps(self) -> int:
        """The epoch batches of all tasks."""
        return sum(stream.epoch_batches for _, stream in self._streams)

    @property
    def epoch_examples(self) -> dict[str, int]:
        """Expected examples of each task in an epoch, rounded: the mean over the stage's epochs."""
        shares = np.mean([self.probabilities(epoch) for epoch in range(len(self._powers))], axis=0)
        return {
            task: round(float(share) * self.epoch_steps * stream.pass_examples / stream.pass_batches)
            for share, (task, stream) in zip(shares, self._streams, strict=True)
        }

    def probabilities(self, epoch: int) -> NDArray[np.float64]:
        """Probability of each task in the 0-based ``epoch``, shape (K,)."""
        sizes = np.array([stream.epoch_examples for _, stream in self._streams], dtype=np.float64)
        weights = (sizes / sizes.max()) ** self._powers[min(epoch, len(self._powers) - 1)]
        return weights / weights.sum()

    def step(self, index: int) -> Step:
        """The step at ``index``, a part of one task. The first step asked of an epoch draws all epochs before it."""
        epoch, place = epoch_and_place(index, self.epoch_steps)
        turns, batches = self._epoch(epoch)
        task, stream = self._streams[int(turns[place])]
        return Step(index, epoch, (Part(task, stream.batch(int(batches[place]))),))

    def _drawn_epoch(self, epoch: int) -> tuple[Indices, Indices]:
        """Of each step of the epoch, shape (epoch_steps,): the task, and how many steps it had before."""
        turns = self._turns(epoch)
        return turns, earlier_occurrences(turns) + self._counts_before(epoch)[turns]

    def _turns(self, epoch: int) -> Indices:
        bounds = self.probabilities(epoch).cumsum()[:-1]
        return bounds.searchsorted(uniforms(self.epoch_steps, ("sampled", self._seed, self._stage, epoch)), "right")

    def _counts_before(self, epoch: int) -> Indices:
        """Draws of each task in all epochs before ``epoch``, shape (K,)."""
        before = list(self._draws_before)
        for earlier in range(len(before) - 1, epoch):
            before.append(before[earlier] + np.bincount(self._turns(earlier), minlength=len(self._streams)))
        self._draws_before = before
        return before[epoch]


def build(
    options: SampledSchedule, streams: Mapping[str, BatchStream], *, seed: int, stage: int | str, epochs: int
) -> Sampled:
    """A `Sampled`; annealed powers fall from 1 to .2 over the epochs, in equal amounts (Stickland and Murray 2019)."""
    powers = (options.power,) * epochs
    if options.annealed:
        powers = tuple(1 - 0.8 * epoch / max(1, epochs - 1) for epoch in range(epochs))
    return Sampled(streams, seed, stage, powers)
