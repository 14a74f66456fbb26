import copy
import pickle
import time
import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from manyhead.errors import RecipeError
from manyhead.schedules.base import StreamOptions
from manyhead.schedules.streams import BatchStream

KEY = (13, 0, "sst")


def stream_of(size, batch_size, key=KEY, lengths=None, **options):
    return BatchStream(size, StreamOptions(batch_size, **options), key, lengths)


def rows_of(stream, number):
    """All rows of pass ``number``, in order."""
    start = number * stream.pass_batches
    return np.concatenate([stream.batch(start + place) for place in range(stream.pass_batches)])


def lengths_of(size, high=20):
    return np.random.default_rng(size).integers(1, high, size)


@st.composite
def streams(draw):
    """Streams of every kind of option."""
    size = draw(st.integers(1, 60))
    groups = draw(st.none() | st.lists(st.integers(-3, 3), min_size=size, max_size=size))
    share = draw(st.none() | st.floats(0.01, 0.99) | st.integers(1, 80).map(float))
    return BatchStream(
        size,
        StreamOptions(
            batch_size=draw(st.integers(1, 70)),
            subsample=share,
            epoch_examples=draw(st.none() | st.integers(1, 150)),
            length_window=draw(st.integers(0, 4)),
            groups=groups,
        ),
        (draw(st.integers(0, 2**63 - 1)), draw(st.integers(0, 3)), "task"),
        lengths_of(size),
    )


@given(streams(), st.lists(st.integers(0, 300), min_size=1, max_size=8))
def test_a_batch_depends_on_nothing_asked_before(stream, indices):
    asked = [stream.batch(index) for index in indices]
    for index, batch in zip(indices, asked, strict=True):
        assert np.array_equal(pickle.loads(pickle.dumps(stream)).batch(index), batch)
        assert np.array_equal(copy.deepcopy(stream).batch(index), batch)
        batch[:] = -1
        assert (stream.batch(index) >= 0).all()


@given(streams(), st.integers(0, 30), st.integers(0, 30))
def test_examples_counts_what_batches_hold(stream, start, count):
    held = [stream.batch(index) for index in range(start, start + count)]
    assert stream.examples(start, start + count) == sum(map(len, held))
    assert all(1 <= len(batch) <= stream.options.batch_size and batch.dtype == np.int64 for batch in held)


@given(streams())
def test_an_epoch_is_the_fewest_batches_that_hold_its_examples(stream):
    assert stream.examples(0, stream.epoch_batches) >= stream.epoch_examples
    assert stream.examples(0, stream.epoch_batches - 1) < stream.epoch_examples


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 4), st.integers(0, 5))
def test_a_pass_holds_every_row_once_in_full_batches_and_a_short_last_one(size, batch_size, window, number):
    stream = stream_of(size, batch_size, length_window=window, lengths=lengths_of(size))
    assert np.array_equal(np.sort(rows_of(stream, number)), np.arange(size))
    start = number * stream.pass_batches
    counts = [len(stream.batch(start + place)) for place in range(stream.pass_batches)]
    assert counts == [batch_size] * (size // batch_size) + [size % batch_size] * (size % batch_size > 0)
    assert stream.pass_batches == len(counts) == stream.epoch_batches
    assert stream.pass_examples == size == stream.epoch_examples


def test_seed_stage_task_and_pass_each_give_another_order():
    stream = stream_of(50, 8)
    keys = [(13, 0, "sst"), (14, 0, "sst"), (13, 1, "sst"), (13, "0", "sst"), (13, 0, "sts")]
    orders = [tuple(rows_of(stream_of(50, 8, key), 0)) for key in keys]
    orders += [tuple(rows_of(stream, number)) for number in (1, 2, 3)]
    assert len(set(orders)) == len(orders)


def test_the_order_does_not_depend_on_the_batch_size():
    assert np.array_equal(rows_of(stream_of(50, 8), 4), rows_of(stream_of(50, 7), 4))


def test_every_row_stands_everywhere_equally_often():
    stream = stream_of(5, 5)
    places = np.array([stream.batch(index) for index in range(5000)])
    counts = np.array([np.bincount(column, minlength=5) for column in places.T])
    assert np.abs(counts - 1000).max() < 140


@given(st.integers(1, 200), st.floats(0.001, 0.999), st.integers(0, 9))
def test_a_subsample_is_the_same_in_every_pass_and_stage_and_differs_by_seed_and_task(size, share, number):
    chosen = set(rows_of(stream_of(size, 8, subsample=share), 0))
    assert len(chosen) == max(1, round(share * size))
    assert set(rows_of(stream_of(size, 8, (13, 7, "sst"), subsample=share), number)) == chosen
    assert set(rows_of(stream_of(size, 8, subsample=float(len(chosen))), 1)) == chosen
    assume(20 <= len(chosen) <= size - 20)
    assert set(rows_of(stream_of(size, 8, (14, 0, "sst"), subsample=share), 0)) != chosen
    assert set(rows_of(stream_of(size, 8, (13, 0, "sts"), subsample=share), 0)) != chosen


def test_a_smaller_subsample_is_part_of_a_larger_one_and_all_rows_are_no_subsample():
    small, large = (set(rows_of(stream_of(90, 8, subsample=count), 0)) for count in (20.0, 50.0))
    assert small < large
    for count in (90.0, 1000.0):
        assert np.array_equal(rows_of(stream_of(90, 8, subsample=count), 3), rows_of(stream_of(90, 8), 3))


@given(st.integers(1, 80), st.integers(1, 20), st.integers(1, 5), st.integers(0, 5))
def test_a_length_window_keeps_its_examples_and_sorts_them_into_batches(size, batch_size, window, number):
    lengths = lengths_of(size)
    stream = stream_of(size, batch_size, length_window=window, lengths=lengths)
    rows, plain = rows_of(stream, number), rows_of(stream_of(size, batch_size), number)
    for start in range(0, size, batch_size * window):
        stop = start + batch_size * window
        assert np.array_equal(np.sort(rows[start:stop]), np.sort(plain[start:stop]))
        batches = [lengths[rows[at : at + batch_size]] for at in range(start, min(stop, size), batch_size)]
        assert all(np.array_equal(batch, np.sort(batch)) for batch in batches)
        ranges = sorted((batch[0], batch[-1]) for batch in batches)
        assert all(before[1] <= after[0] for before, after in pairwise(ranges))


def test_without_a_length_window_lengths_change_nothing():
    assert np.array_equal(rows_of(stream_of(50, 8, lengths=lengths_of(50)), 1), rows_of(stream_of(50, 8), 1))


def test_windows_are_in_random_order_and_any_lengths_may_be_the_short_batch():
    lengths = np.arange(22)
    stream = stream_of(22, 4, length_window=6, lengths=lengths)
    firsts = Counter(int(stream.batch(number * 6)[0]) for number in range(600))
    lasts = Counter(int(stream.batch(number * 6 + 5)[0]) for number in range(600))
    assert set(lasts) == {0, 4, 8, 12, 16, 20}
    assert min(lasts.values()) > 60
    assert max(firsts.values()) < 180


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 4))
def test_groups_are_drawn_equally_in_every_pass_and_rows_equally_within_a_group(groups, batch_size, passes):
    stream = stream_of(len(groups), batch_size, groups=groups)
    drawn = np.concatenate([rows_of(stream, number) for number in range(passes)])
    labels = np.array(groups)[drawn]
    for number in range(passes):
        pass_counts = Counter(labels[number * len(groups) : (number + 1) * len(groups)].tolist())
        assert set(pass_counts) == set(groups)
        assert max(pass_counts.values()) - min(pass_counts.values()) <= 1
    times = np.bincount(drawn, minlength=len(groups))
    for group in set(groups):
        mine = times[np.array(groups) == group]
        assert mine.max() - mine.min() <= 1
    totals = [int(times[np.array(groups) == group].sum()) for group in set(groups)]
    assert max(totals) - min(totals) <= 1


def test_groups_meet_subsample_and_length_window():
    groups = np.arange(80) % 4
    stream = stream_of(80, 8, groups=groups, subsample=0.5, length_window=2, lengths=lengths_of(80))
    chosen = set(rows_of(stream_of(80, 8, subsample=0.5), 0))
    rows = rows_of(stream, 2)
    assert len(rows) == 40
    assert set(rows) <= chosen
    assert Counter(groups[rows].tolist()) == dict.fromkeys(range(4), 10)


def test_one_group_is_a_plain_permutation_and_a_group_of_one_row_repeats():
    assert np.array_equal(np.sort(rows_of(stream_of(30, 8, groups=[2] * 30), 3)), np.arange(30))
    counts = Counter(rows_of(stream_of(100, 8, groups=[1] + [0] * 99), 0).tolist())
    assert counts[0] == 50
    assert set(counts.values()) == {1, 50}


def test_one_row_and_a_batch_larger_than_the_rows():
    assert [stream_of(1, 8).batch(index).tolist() for index in (0, 1, 10**9)] == [[0]] * 3
    assert stream_of(3, 8).pass_batches == 1
    assert sorted(stream_of(3, 8).batch(5)) == [0, 1, 2]


def test_epochs_shorter_than_a_pass_go_on_behind_each_other():
    stream = stream_of(40, 8, epoch_examples=20)
    assert (stream.epoch_batches, stream.pass_batches, stream.epoch_examples) == (3, 5, 20)
    assert stream.examples(0, 3) == 24
    assert stream_of(10, 4, epoch_examples=25).epoch_batches == 8  # two passes of three batches, and 5 more examples


def test_far_batches_are_quick():
    groups = np.arange(100_000) % 5
    stream = stream_of(100_000, 8, length_window=50, lengths=lengths_of(100_000), groups=groups)
    started = time.perf_counter()
    for index in (10**9, 10**9 + 1, 10**12):
        assert len(stream.batch(index)) == 8
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("size", "options", "key"),
    [
        (0, {}, "tasks.sst.files.train"),
        (5, {"batch_size": 0}, "stages.0.batch_size"),
        (5, {"subsample": 0.0}, "stages.0.subsample.sst"),
        (5, {"subsample": -0.5}, "stages.0.subsample.sst"),
        (5, {"subsample": 1.5}, "stages.0.subsample.sst"),
        (5, {"subsample": float("nan")}, "stages.0.subsample.sst"),
        (5, {"subsample": float("inf")}, "stages.0.subsample.sst"),
        (5, {"epoch_examples": 0}, "stages.0.epoch_examples.sst"),
        (5, {"length_window": -1}, "stages.0.length_window"),
    ],
)
def test_options_out_of_range_are_refused_by_key(size, options, key):
    with pytest.raises(RecipeError) as caught:
        BatchStream(size, replace(StreamOptions(8), **options), KEY)
    assert [problem.key for problem in caught.value.problems] == [key]


def test_all_problems_come_at_once():
    with pytest.raises(RecipeError) as caught:
        BatchStream(0, StreamOptions(0, subsample=-1, epoch_examples=-1, length_window=-1), KEY)
    assert len(caught.value.problems) == 5


def test_arrays_of_another_size_and_negative_batches_are_refused():
    for call in (
        lambda: stream_of(5, 2, length_window=2),
        lambda: stream_of(5, 2, lengths=np.ones(4)),
        lambda: stream_of(5, 2, groups=[0, 1]),
    ):
        with pytest.raises(ValueError, match=r"lengths|groups"):
            call()
    with pytest.raises(IndexError, match="-1"):
        stream_of(5, 2).batch(-1)


def test_the_order_stays_what_it_was():
    lengths = np.array([5, 3, 9, 1, 7, 2, 8, 4, 6, 5])
    assert [stream_of(10, 4).batch(index).tolist() for index in (0, 1, 2, 3, 1000)] == [
        [4, 9, 8, 7],
        [1, 2, 3, 0],
        [5, 6],
        [7, 8, 4, 5],
        [8, 1, 7, 2],
    ]
    assert rows_of(stream_of(10, 4, subsample=0.5), 0).tolist() == [8, 3, 5, 6, 2]
    assert rows_of(stream_of(10, 4, length_window=2, lengths=lengths), 0).tolist() == [3, 1, 7, 9, 0, 8, 4, 2, 5, 6]
    balanced = stream_of(10, 4, groups=[0, 0, 0, 0, 0, 0, 0, 1, 1, 2])
    assert rows_of(balanced, 1).tolist() == [9, 0, 9, 5, 9, 8, 7, 7, 4, 8]


@pytest.mark.parametrize("options", [{}, {"length_window": 16}, {"groups": True}, {"subsample": 0.9}])
def test_memory_is_at_most_32_bytes_a_row(options):
    """At the most, while the next pass is drawn; what is given to the stream is not counted."""
    size, rest = 400_000, {key: value for key, value in options.items() if key != "groups"}
    groups = np.arange(size) % 7 if "groups" in options else None
    lengths = lengths_of(size).astype(np.int32)
    tracemalloc.start()
    try:
        stream = BatchStream(size, StreamOptions(8, groups=groups, **rest), KEY, lengths)
        stream.batch(0)
        after = tracemalloc.get_traced_memory()[0]
        for index in range(stream.pass_batches - 1, stream.pass_batches + 2):
            stream.batch(index)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert after <= 13 * size
    assert peak <= 32 * size
