"""One batch of each task a step, the smaller tasks circularly."""

from collections.abc import Mapping

from manyhead.schedules import InterleavedSchedule
from manyhead.schedules.base import Schedule
from manyhead.schedules.lockstep import circular
from manyhead.schedules.streams import BatchStream


def build(
    options: InterleavedSchedule, streams: Mapping[str, BatchStream], *, seed: int, stage: int | str, epochs: int
) -> Schedule:
    """One step: one batch of each task. One epoch: as many steps as the largest task's epoch has batches.

    Smaller tasks start again, with a fresh permutation, whenever they are exhausted, and go on across epochs: the step
    at index i holds batch i of every task. So a task as large as the largest is seen exactly once an epoch, and the
    passes of a smaller one are whole, wherever epochs end (S3, S4). Sizes are compared in batches.
    """
    del options, seed, stage, epochs
    return circular(streams)
