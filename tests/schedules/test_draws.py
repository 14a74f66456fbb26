from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhead.schedules.draws import Latest, earlier_occurrences, permutations, random_words, uniforms

KEYS = st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 9) | st.text(max_size=5), st.text(max_size=5))


@given(key=KEYS, start=st.integers(0, 100) | st.integers(0, 10**18), count=st.integers(0, 50))
def test_any_stretch_of_words_can_be_asked_for(key, start, count):
    whole = random_words(count + 10, key, start)
    assert np.array_equal(random_words(count, key, start + 7), whole[7 : 7 + count])


@given(first=KEYS, second=KEYS)
def test_keys_name_different_sequences(first, second):
    same = np.array_equal(random_words(4, first), random_words(4, second))
    assert same == (first == second)


def test_keys_are_not_mistaken_for_each_other():
    keys = [(1, "a", "b"), (1, "a,b"), (1, 'a", "b'), ("1", "a", "b"), (1, "b", "a"), (1, "a", "b", 0), (), ("",)]
    assert len({int(random_words(1, key)[0]) for key in keys}) == len(keys)


def test_a_key_of_numpy_integers_is_the_same_key_and_fractions_are_none():
    whole: Any = (np.int64(5), "a")
    fraction: Any = (np.float32(5), "a")
    assert np.array_equal(random_words(3, whole), random_words(3, (5, "a")))
    with pytest.raises(TypeError):
        random_words(3, fraction)


def test_the_global_generator_is_neither_read_nor_moved():
    np.random.seed(1)
    words, follows = random_words(8, (1,)), np.random.random()
    np.random.seed(1)
    assert np.random.random() == follows
    assert np.array_equal(random_words(8, (1,)), words)


@given(size=st.integers(1, 40), first=st.integers(0, 10**12), count=st.integers(1, 5))
def test_permutations_are_permutations_and_each_can_be_asked_for(size, first, count):
    drawn = permutations(size, (3, "p"), first, count)
    assert drawn.dtype == np.int64
    assert np.array_equal(np.sort(drawn, axis=1), np.tile(np.arange(size), (count, 1)))
    assert np.array_equal(permutations(size, (3, "p"), first + count - 1)[0], drawn[-1])


def test_permutations_are_uniform():
    drawn = permutations(3, (0, "uniform"), count=60_000)
    _, counts = np.unique(drawn @ np.array([9, 3, 1]), return_counts=True)
    assert len(counts) == 6
    assert np.abs(counts - 10_000).max() < 450  # nearly 5 standard deviations


def test_uniforms_are_uniform():
    drawn = uniforms(100_000, (0, "uniforms"))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert np.abs(np.histogram(drawn, 10, (0, 1))[0] - 10_000).max() < 480


@given(st.lists(st.integers(0, 4), max_size=30))
def test_earlier_occurrences(labels):
    expected = [labels[:place].count(label) for place, label in enumerate(labels)]
    assert earlier_occurrences(np.array(labels, dtype=np.int64)).tolist() == expected


def test_latest_computes_once_while_the_number_stays():
    asked: list[int] = []
    squares = Latest(lambda number: asked.append(number) or number**2)
    assert [squares(number) for number in (3, 3, 4, 3)] == [9, 9, 16, 9]
    assert asked == [3, 4, 3]


def test_the_drawing_stays_what_it_was():
    assert random_words(2, (13, 0, "sst")).tolist() == [13630080175120590492, 4573590634361709787]
    assert permutations(8, (13, 0, "sst"), 2).tolist() == [[3, 4, 2, 5, 1, 6, 0, 7]]
    assert uniforms(2, (13, 0, "sst")).tolist() == [0.7388881268508674, 0.24793484509171604]
