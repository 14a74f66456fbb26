"""Schedules: which examples of which tasks meet in each update. Each is a pure function of (seed, stage, step).

A schedule yields steps made of parts (task, example indices) and can start at any step; see `base` for the interface
and the streams of batches that all of them are built from. Each member's docstring says what one epoch is.

Free of torch: options and the table. Builders: ``build(options, streams, *, seed, stage, epochs) -> Schedule``, where
``streams`` maps each task to its `streams.BatchStream` in recipe order, ``seed`` and ``stage`` (its index, or a name of
its own) key what the schedule itself draws, and ``epochs`` is the stage's number of epochs. What they draw, and the
order of examples in a stream, comes from `draws`: numbers that are a pure function of their key.
"""

# Members narrow `kind`; pydantic freezes them (see pyproject.toml).
# pyright: reportIncompatibleVariableOverride=false

from typing import Literal, Self

from pydantic import Field, model_validator

from manyhead.recipe.schema import Entry, Options


class ScheduleOptions(Options):
    """What a schedule's options say of its steps."""

    @property
    def one_task_a_step(self) -> bool:
        """Whether no step holds several tasks."""
        return False


class _OneTaskSchedule(ScheduleOptions):
    @property
    def one_task_a_step(self) -> bool:
        """See `ScheduleOptions`."""
        return True


class SequentialSchedule(_OneTaskSchedule):
    """All of the first task, then all of the second, ... One task a step (S1 base, S2, S3 baseline)."""

    kind: Literal["sequential"] = "sequential"
    order: list[str] | None = Field(default=None, description="Order of the tasks; null: the recipe's.")


class ParallelSchedule(ScheduleOptions):
    """One batch of each task a step."""

    kind: Literal["parallel"] = "parallel"
    until: Literal["smallest", "largest", "restart"] = Field(
        default="smallest",
        description="An epoch ends with the smallest task (S2), or with the largest while exhausted tasks drop out "
        "(S1) or restart.",
    )


class InterleavedSchedule(ScheduleOptions):
    """One batch of each task a step; smaller tasks start again until the largest is exhausted (S3, S4)."""

    kind: Literal["interleaved"] = "interleaved"


class RoundRobinSchedule(ScheduleOptions):
    """Batches in a fixed order of tasks; exhausted tasks start again until all are exhausted (S2)."""

    kind: Literal["round_robin"] = "round_robin"
    update: Literal["cycle", "batch"] = Field(
        default="cycle", description="One update a cycle over the tasks, or a batch."
    )

    @property
    def one_task_a_step(self) -> bool:
        """See `ScheduleOptions`."""
        return self.update == "batch"


class SampledSchedule(_OneTaskSchedule):
    """One task a step, drawn with probability proportional to n^power."""

    kind: Literal["sampled"] = "sampled"
    power: float = Field(default=1.0, ge=0, description="1: by size, .5: by its square root, 0: all alike.")
    annealed: bool = Field(
        default=False, description="power = 1 - .8 (e-1)/(E-1) in epoch e of E (Stickland and Murray)."
    )

    @model_validator(mode="after")
    def _refuse_power_of_annealed(self) -> Self:
        if self.annealed and self.power != 1:
            raise ValueError("annealed sets the power of each epoch; leave power out")
        return self


class ShuffledSchedule(_OneTaskSchedule):
    """Every batch of every task once an epoch, in random order; one task a step."""

    kind: Literal["shuffled"] = "shuffled"


SCHEDULES: dict[str, Entry] = {
    "sequential": Entry(SequentialSchedule, "manyhead.schedules.sequential:build"),
    "parallel": Entry(ParallelSchedule, "manyhead.schedules.parallel:build"),
    "interleaved": Entry(InterleavedSchedule, "manyhead.schedules.interleaved:build"),
    "round_robin": Entry(RoundRobinSchedule, "manyhead.schedules.round_robin:build"),
    "sampled": Entry(SampledSchedule, "manyhead.schedules.sampled:build"),
    "shuffled": Entry(ShuffledSchedule, "manyhead.schedules.shuffled:build"),
}
