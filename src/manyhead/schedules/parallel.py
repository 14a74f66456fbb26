"""One batch of each task a step; every epoch starts every task afresh."""

from collections.abc import Mapping

from manyhead.schedules import ParallelSchedule
from manyhead.schedules.base import Schedule
from manyhead.schedules.lockstep import Lockstep, largest
from manyhead.schedules.streams import BatchStream


def build(
    options: ParallelSchedule, streams: Mapping[str, BatchStream], *, seed: int, stage: int | str, epochs: int
) -> Schedule:
    """One step: one batch of each task. One epoch: an epoch of every task side by side, as long as ``until`` says.

    - ``smallest``: as long as the epoch of the smallest task; what is left of the others is not seen in this epoch, and
      their next epoch starts a fresh permutation (S2's "break");
    - ``largest``: as long as the epoch of the largest task; tasks whose epoch ends before drop out, and the last steps
      hold fewer tasks. Every task is seen exactly once (S1);
    - ``restart``: as long as the epoch of the largest task; tasks whose epoch ends before start another at once, which
      ends, wherever it is, with the epoch.

    Sizes are compared in batches.
    """
    del seed, stage, epochs
    batches = {task: stream.epoch_batches for task, stream in streams.items()}
    if options.until == "smallest":
        return Lockstep(streams, min(batches.values()), batches)
    longest = largest(streams)
    if options.until == "restart":
        batches = {task: -(-longest // count) * count for task, count in batches.items()}
    return Lockstep(streams, longest, batches)
