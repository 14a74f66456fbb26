import copy
import pickle
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from manyhead.errors import RecipeError
from manyhead.recipe.schema import Options
from manyhead.recipe.tables import builder
from manyhead.schedules import (
    SCHEDULES,
    InterleavedSchedule,
    ParallelSchedule,
    RoundRobinSchedule,
    SampledSchedule,
    SequentialSchedule,
    ShuffledSchedule,
)
from manyhead.schedules.base import Schedule, StreamOptions
from manyhead.schedules.streams import BatchStream

ONE_TASK_A_STEP = ("sequential", "sampled", "shuffled")

ALL_OPTIONS = [
    SequentialSchedule(),
    ParallelSchedule(until="smallest"),
    ParallelSchedule(until="largest"),
    ParallelSchedule(until="restart"),
    InterleavedSchedule(),
    RoundRobinSchedule(update="cycle"),
    RoundRobinSchedule(update="batch"),
    SampledSchedule(),
    SampledSchedule(power=0.5),
    SampledSchedule(annealed=True),
    ShuffledSchedule(),
]
ONCE_AN_EPOCH = [SequentialSchedule(), ParallelSchedule(until="largest"), ShuffledSchedule()]

SIZES = st.dictionaries(
    st.sampled_from(["sst", "para", "sts", "nli"]), st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1
)
"""task: (rows, batch size)."""


def streams_of(sizes, seed=13, stage=0, **options):
    return {
        task: BatchStream(rows, StreamOptions(batch_size, **options), (seed, stage, task))
        for task, (rows, batch_size) in sizes.items()
    }


def built(options: Options, streams: Mapping[str, BatchStream], seed=13, stage=0, epochs=3) -> Schedule:
    build = builder({"schedules": SCHEDULES}, "schedules", options)
    return build(options, streams, seed=seed, stage=stage, epochs=epochs)


def steps_of(schedule, epoch):
    return [schedule.step(epoch * schedule.epoch_steps + place) for place in range(schedule.epoch_steps)]


def examples_of(steps):
    """task: all its examples in ``steps``, in order."""
    found = {}
    for step in steps:
        for part in step.parts:
            found.setdefault(part.task, []).extend(part.examples.tolist())
    return found


def plain(step):
    return step.index, step.epoch, [(part.task, part.examples.tolist()) for part in step.parts]


def test_every_member_is_tried_here():
    assert {options.kind for options in ALL_OPTIONS} == set(SCHEDULES)


@given(st.sampled_from(ALL_OPTIONS), SIZES, st.lists(st.integers(0, 400), min_size=1, max_size=8), st.data())
def test_a_step_depends_on_nothing_asked_before(options, sizes, indices, data):
    schedule = built(options, streams_of(sizes))
    asked = {index: plain(schedule.step(index)) for index in indices}
    again = data.draw(st.permutations(indices))
    fresh = built(options, streams_of(sizes))
    assert {index: plain(fresh.step(index)) for index in again} == asked
    for index in again:
        assert plain(built(options, streams_of(sizes)).step(index)) == asked[index]
        assert plain(copy.deepcopy(schedule).step(index)) == asked[index]
        assert plain(pickle.loads(pickle.dumps(schedule)).step(index)) == asked[index]


@given(st.sampled_from(ALL_OPTIONS), SIZES)
def test_steps_know_their_place_and_hold_tasks_in_recipe_order_at_most_once(options, sizes):
    schedule = built(options, streams_of(sizes))
    for epoch in (0, 2):
        for place, step in enumerate(steps_of(schedule, epoch)):
            assert (step.index, step.epoch) == (epoch * schedule.epoch_steps + place, epoch)
            tasks = [part.task for part in step.parts]
            assert tasks
            assert tasks == [task for task in sizes if task in tasks]
            if options.kind in ONE_TASK_A_STEP or (options.kind, getattr(options, "update", "")) == (
                "round_robin",
                "batch",
            ):
                assert len(tasks) == 1


@given(st.sampled_from([options for options in ALL_OPTIONS if options.kind != "sampled"]), SIZES, st.booleans())
def test_epoch_examples_is_what_the_first_epoch_holds(options, sizes, part):
    schedule = built(options, streams_of(sizes, epoch_examples=9 if part else None))
    held = examples_of(steps_of(schedule, 0))
    assert schedule.epoch_examples == {task: len(held[task]) for task in sizes}


@given(st.sampled_from(ONCE_AN_EPOCH), SIZES, st.integers(0, 3))
def test_every_example_exactly_once_an_epoch(options, sizes, epoch):
    held = examples_of(steps_of(built(options, streams_of(sizes)), epoch))
    assert {task: sorted(rows) for task, rows in held.items()} == {task: [*range(n)] for task, (n, _) in sizes.items()}


@given(st.sampled_from([*ONCE_AN_EPOCH, InterleavedSchedule()]), st.integers(1, 40), st.integers(1, 12))
def test_one_task_alone_is_its_stream(options, rows, batch_size):
    streams = streams_of({"sst": (rows, batch_size)})
    schedule = built(options, streams)
    for index in range(2 * schedule.epoch_steps):
        assert schedule.step(index).parts[0].examples.tolist() == streams["sst"].batch(index).tolist()


@given(st.sampled_from(ALL_OPTIONS), st.integers(1, 40), st.integers(1, 12), st.integers(0, 2))
def test_one_task_alone_is_seen_once_an_epoch_by_every_schedule(options, rows, batch_size, epoch):
    held = examples_of(steps_of(built(options, streams_of({"sst": (rows, batch_size)})), epoch))
    assert sorted(held["sst"]) == [*range(rows)]


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=repr)
def test_epochs_seeds_and_stages_differ(options):
    sizes = {"sst": (60, 4), "para": (90, 4), "sts": (30, 4)}
    schedule = built(options, streams_of(sizes))
    orders = [str(examples_of(steps_of(schedule, epoch))) for epoch in range(3)]
    for seed, stage in ((14, 0), (13, 1)):
        other = built(options, streams_of(sizes, seed, stage), seed, stage)
        orders.append(str(examples_of(steps_of(other, 0))))
    assert len(set(orders)) == len(orders)


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=repr)
def test_steps_below_0_are_refused(options):
    with pytest.raises(IndexError, match="-1"):
        built(options, streams_of({"sst": (6, 4), "sts": (9, 4)})).step(-1)


# sequential


def test_sequential_is_one_task_after_another_in_the_order_given():
    streams = streams_of({"sst": (10, 4), "para": (20, 4), "sts": (1, 4)})
    in_turn = [step.parts[0].task for step in steps_of(built(SequentialSchedule(), streams), 1)]
    assert in_turn == ["sst"] * 3 + ["para"] * 5 + ["sts"]
    other = SequentialSchedule(order=["sts", "para", "sst"])
    assert [step.parts[0].task for step in steps_of(built(other, streams), 1)] == in_turn[::-1]


@pytest.mark.parametrize("order", [["sst"], ["sst", "sts", "sst"], ["sst", "sts", "nli"], []])
def test_sequential_refuses_an_order_that_is_not_one_of_all_tasks(order):
    with pytest.raises(RecipeError, match=r"stages\.0\.schedule\.order: .*each of sst, sts once"):
        built(SequentialSchedule(order=order), streams_of({"sst": (5, 2), "sts": (5, 2)}))


# parallel


@given(SIZES, st.integers(0, 3))
def test_parallel_until_smallest_has_all_tasks_in_each_step_from_a_fresh_pass(sizes, epoch):
    streams = streams_of(sizes)
    schedule = built(ParallelSchedule(until="smallest"), streams)
    steps = steps_of(schedule, epoch)
    assert len(steps) == min(stream.pass_batches for stream in streams.values())
    for place, step in enumerate(steps):
        for part, stream in zip(step.parts, streams.values(), strict=True):
            assert part.examples.tolist() == stream.batch(epoch * stream.pass_batches + place).tolist()


@given(SIZES)
def test_parallel_until_largest_lets_exhausted_tasks_drop_out(sizes):
    streams = streams_of(sizes)
    steps = steps_of(built(ParallelSchedule(until="largest"), streams), 1)
    assert len(steps) == max(stream.pass_batches for stream in streams.values())
    for place, step in enumerate(steps):
        assert [part.task for part in step.parts] == [
            task for task, stream in streams.items() if place < stream.pass_batches
        ]


@given(SIZES, st.integers(0, 3))
def test_parallel_restart_starts_every_epoch_afresh_and_repeats_no_pass(sizes, epoch):
    streams = streams_of(sizes)
    schedule = built(ParallelSchedule(until="restart"), streams)
    for task, rows in examples_of(steps_of(schedule, epoch)).items():
        whole, size = len(rows) // sizes[task][0], sizes[task][0]
        for number in range(whole):
            assert sorted(rows[number * size : (number + 1) * size]) == [*range(size)]
        assert len(set(rows[whole * size :])) == len(rows) - whole * size
    assert all(len(step.parts) == len(sizes) for step in steps_of(schedule, epoch))


# interleaved and round-robin


@given(SIZES, st.integers(0, 3))
def test_interleaved_goes_on_circularly_and_sees_the_largest_once_an_epoch(sizes, epoch):
    streams = streams_of(sizes)
    schedule = built(InterleavedSchedule(), streams)
    steps = steps_of(schedule, epoch)
    longest = max(stream.pass_batches for stream in streams.values())
    assert len(steps) == longest
    for step in steps:
        assert {part.task: part.examples.tolist() for part in step.parts} == {
            task: stream.batch(step.index).tolist() for task, stream in streams.items()
        }
    for task, rows in examples_of(steps).items():
        if streams[task].pass_batches == longest:
            assert sorted(rows) == [*range(sizes[task][0])]


@given(SIZES, st.integers(1, 60))
def test_interleaved_has_seen_every_example_equally_often_up_to_one(sizes, count):
    schedule = built(InterleavedSchedule(), streams_of(sizes))
    for task, rows in examples_of(schedule.step(index) for index in range(count)).items():
        times = np.bincount(rows, minlength=sizes[task][0])
        assert times.max() - times.min() <= 1


@given(SIZES, st.integers(0, 100))
def test_a_round_robin_cycle_is_an_interleaved_step_and_its_batches_are_the_parts(sizes, index):
    streams = streams_of(sizes)
    cycle = built(RoundRobinSchedule(update="cycle"), streams)
    batch = built(RoundRobinSchedule(update="batch"), streams)
    parts = plain(cycle.step(index))[2]
    assert plain(cycle.step(index)) == plain(built(InterleavedSchedule(), streams).step(index))
    assert [plain(batch.step(index * len(sizes) + turn))[2][0] for turn in range(len(sizes))] == parts
    assert batch.epoch_steps == cycle.epoch_steps * len(sizes)
    assert batch.epoch_examples == cycle.epoch_examples
    assert batch.step(index * len(sizes)).epoch == cycle.step(index).epoch


# shuffled and sampled


@given(st.sampled_from([ShuffledSchedule(), SampledSchedule(power=0.5), SampledSchedule(annealed=True)]), SIZES)
def test_drawn_tasks_go_through_their_streams_in_order(options, sizes):
    streams = streams_of(sizes)
    schedule = built(options, streams)
    reached = Counter()
    for index in range(3 * schedule.epoch_steps):
        (part,) = schedule.step(index).parts
        assert part.examples.tolist() == streams[part.task].batch(reached[part.task]).tolist()
        reached[part.task] += 1


def test_shuffled_mixes_the_tasks():
    schedule = built(ShuffledSchedule(), streams_of({"sst": (400, 4), "para": (400, 4)}))
    tasks = [step.parts[0].task for step in steps_of(schedule, 0)]
    changes = sum(before != after for before, after in pairwise(tasks))
    assert 70 < changes < 130


@pytest.mark.parametrize("power", [0, 0.5, 1, 400])
def test_sampled_draws_in_proportion_to_a_power_of_the_examples(power):
    sizes = {"sst": (400, 4), "para": (6400, 8), "sts": (100, 1)}
    streams = streams_of(sizes)
    schedule = built(SampledSchedule(power=power), streams, epochs=2)
    weights = np.array([400, 6400, 100]) / 6400
    expected = weights**power / (weights**power).sum()
    assert schedule.epoch_steps == 100 + 800 + 100
    counts = Counter(step.parts[0].task for epoch in range(4) for step in steps_of(schedule, epoch))
    assert np.array([counts[task] for task in sizes]) / 4000 == pytest.approx(expected, abs=0.04)
    steps = expected * 1000
    assert schedule.epoch_examples == {
        task: round(count * sizes[task][1]) for task, count in zip(sizes, steps, strict=True)
    }


def test_sampled_counts_an_epoch_as_the_recipe_does():
    rows, small = StreamOptions(4), StreamOptions(4, epoch_examples=40)
    streams = {"para": BatchStream(4000, small, (13, 0, "para")), "sts": BatchStream(40, rows, (13, 0, "sts"))}
    schedule = built(SampledSchedule(), streams)
    assert schedule.epoch_steps == 20
    assert schedule.epoch_examples == {"para": 40, "sts": 40}


@pytest.mark.parametrize(("epochs", "powers"), [(1, [1, 1]), (2, [1, 0.2, 0.2]), (5, [1, 0.8, 0.6, 0.4, 0.2, 0.2])])
def test_annealed_power_falls_from_1_to_a_fifth_over_the_epochs(epochs, powers):
    streams = streams_of({"para": (8000, 4), "sts": (500, 4)})
    schedule = built(SampledSchedule(annealed=True), streams, epochs=epochs)
    for epoch, power in enumerate(powers):
        share = 16**power / (16**power + 1)
        drawn = np.mean([step.parts[0].task == "para" for step in steps_of(schedule, epoch)])
        assert drawn == pytest.approx(share, abs=0.04)
    mean = np.mean([16**power / (16**power + 1) for power in powers[:epochs]])
    assert schedule.epoch_examples["para"] == round(mean * schedule.epoch_steps * 4)


def test_annealed_refuses_a_power_of_its_own():
    with pytest.raises(ValidationError, match="leave power out"):
        SampledSchedule(annealed=True, power=0.5)


# all of them


def test_large_tasks_and_late_epochs_are_quick():
    sizes = {"sst": (8544, 8), "para": (141_498, 8), "sts": (6040, 8)}
    streams = streams_of(sizes)
    for options in ALL_OPTIONS:
        schedule = built(options, streams, epochs=10)
        assert schedule.step(10 * schedule.epoch_steps - 1).epoch == 9


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (SequentialSchedule(), [[("a", 0, 1)], [("a", 2)], [("b", 2, 5)]]),
        (
            ParallelSchedule(until="smallest"),
            [[("a", 0, 1), ("b", 5, 4)], [("a", 2), ("b", 3, 0)], [("a", 1), ("b", 2, 5)]],
        ),
        (
            ParallelSchedule(until="largest"),
            [[("a", 0, 1), ("b", 5, 4)], [("a", 2), ("b", 3, 0)], [("a", 2, 1), ("b", 2, 5)]],
        ),
        (
            ParallelSchedule(until="restart"),
            [[("a", 0, 1), ("b", 5, 4)], [("a", 2), ("b", 3, 0)], [("a", 0, 1), ("b", 2, 5)]],
        ),
        (InterleavedSchedule(), [[("a", 0, 1), ("b", 5, 4)], [("a", 2), ("b", 3, 0)], [("a", 1), ("b", 2, 5)]]),
        (RoundRobinSchedule(update="batch"), [[("a", 0, 1)], [("b", 5, 4)], [("b", 0, 4)]]),
        (SampledSchedule(power=0.5), [[("a", 0, 1)], [("a", 2)], [("b", 3, 1)]]),
        (ShuffledSchedule(), [[("b", 5, 4)], [("b", 3, 0)], [("b", 2, 5)]]),
    ],
    ids=repr,
)
def test_the_order_stays_what_it_was(options, expected):
    schedule = built(options, streams_of({"a": (3, 2), "b": (6, 2)}))
    assert [
        [(part.task, *part.examples.tolist()) for part in schedule.step(index).parts] for index in (0, 1, 9)
    ] == expected
