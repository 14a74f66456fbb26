"""Partitions of tasks: all of them, the best one, and how often resamples agree."""

import itertools

import numpy as np
import pytest

from manyhead.studies.affinity.grouping import all_partitions, best_grouping, grouping_score


def blocks(*groups: tuple[int, ...], inside: float = 0.5, outside: float = -0.2) -> np.ndarray:
    size = sum(map(len, groups))
    found = np.full((size, size), outside)
    for group in groups:
        found[np.ix_(group, group)] = inside
    np.fill_diagonal(found, 1.0)
    return found


@pytest.mark.parametrize(("size", "count"), [(1, 1), (2, 2), (3, 5), (4, 15), (5, 52), (8, 4140)])
def test_partitions_are_as_many_as_bells_numbers(size: int, count: int) -> None:
    partitions = all_partitions(size)
    assert len({frozenset(map(frozenset, each)) for each in partitions}) == len(partitions) == count
    assert all(sorted(itertools.chain(*each)) == list(range(size)) for each in partitions)


def test_the_score_is_the_mean_of_each_tasks_mean_affinity_with_its_group() -> None:
    affinities = np.array([[1, 0.6, 0.2], [0.6, 1, -0.4], [0.2, -0.4, 1]])
    assert grouping_score(affinities, ((0, 1), (2,))) == pytest.approx((0.6 + 0.6 + 0) / 3)
    assert grouping_score(affinities, ((0, 1, 2),)) == pytest.approx((0.4 + 0.1 - 0.1) / 3)
    assert grouping_score(affinities, ((0,), (1,), (2,))) == 0


def test_planted_groups_are_found_and_resamples_say_how_surely() -> None:
    affinities = blocks((0, 2), (1, 3))
    other = blocks((0, 1), (2, 3))
    found = best_grouping(affinities, np.stack([affinities, affinities, other, affinities]))
    assert set(found.groups) == {(0, 2), (1, 3)}
    assert (found.affinity, found.agreement) == (pytest.approx(0.5), 0.75)


def test_resamples_that_cannot_tell_agree_with_nothing() -> None:
    apart = blocks((0,), (1,), (2,))
    hidden = apart.copy()
    hidden[0, 1] = hidden[1, 0] = np.nan
    found = best_grouping(apart, np.stack([apart, hidden, hidden, hidden]))
    assert (len(found.groups), found.agreement) == (3, 0.25)


@pytest.mark.parametrize("value", [-0.3, 0.0, np.nan])
def test_tasks_that_gain_nothing_stay_apart(value: float) -> None:
    affinities = blocks((0,), (1,), (2,), (3,), outside=value)
    found = best_grouping(affinities, affinities[None])
    assert (len(found.groups), found.affinity, found.agreement) == (4, 0.0, 1.0)


def test_more_tasks_than_can_be_partitioned_go_by_a_tree() -> None:
    groups = ((0, 4, 8), (1, 5), (2, 6, 9), (3, 7))
    affinities = blocks(*groups)
    found = best_grouping(affinities, np.stack([affinities] * 3))
    assert (found.groups, found.agreement) == (groups, 1.0)


def test_the_tree_agrees_with_all_partitions_where_groups_are_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    affinities = blocks((0, 3), (1, 2, 4))
    exact = best_grouping(affinities, affinities[None])
    monkeypatch.setattr("manyhead.studies.affinity.grouping.LARGEST_EXACT", 2)
    by_tree = best_grouping(affinities, affinities[None])
    assert {frozenset(group) for group in by_tree.groups} == {frozenset(group) for group in exact.groups}
    assert by_tree.affinity == pytest.approx(exact.affinity)
