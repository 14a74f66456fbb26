"""Which tasks to train together: the partition into groups whose tasks have the highest affinity to one another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

Array = NDArray[np.float64]
Partition = tuple[tuple[int, ...], ...]

LARGEST_EXACT = 8
"""Tasks up to which every partition is looked at: 4,140 of 8, but 115,975 of 10."""


@dataclass(frozen=True)
class Grouping:
    """The best partition of the tasks, its mean affinity, and the share of resamples whose best it is.

    A resample in which noise hides an affinity agrees with no partition.
    """

    groups: Partition
    affinity: float
    agreement: float


def best_grouping(affinities: Array, samples: Array) -> Grouping:
    """The partition of highest mean affinity, by ``affinities`` (K, K) and by each of their ``samples`` (R, K, K).

    A task's affinity with its group is its mean affinity with the others in it (Fifty 2021), 0 where it is alone: so
    tasks meet where they gain by it. A NaN among ``affinities`` counts as 0. Up to `LARGEST_EXACT` tasks all partitions
    are compared, beyond that those along an average-linkage tree. Of equal partitions the one with more groups wins.
    """
    hidden = (np.isnan(samples) & ~np.isnan(affinities)).any(axis=(1, 2))
    given = np.nan_to_num(np.concatenate([affinities[None], samples[~hidden]]), nan=0.0)
    size = len(affinities)
    if size <= LARGEST_EXACT:
        partitions = all_partitions(size)
        weights = np.stack([_weights(partition, size).ravel() for partition in partitions])
        scores = given.reshape(len(given), -1) @ weights.T
        chosen = [partitions[place] for place in _first_best(scores)]
        best = float(scores[0].max())
    else:
        chosen = [_best_of_tree(each) for each in given]
        best = grouping_score(given[0], chosen[0])
    return Grouping(chosen[0], best, sum(each == chosen[0] for each in chosen[1:]) / len(samples))


def grouping_score(affinities: Array, partition: Partition) -> float:
    """Mean over tasks of their mean affinity with the others of their group."""
    return float((_weights(partition, len(affinities)) * affinities).sum())


@cache
def all_partitions(size: int) -> Sequence[Partition]:
    """All partitions of ``range(size)``, those with more groups first."""
    return sorted(_partitions(size), key=lambda partition: (-len(partition), partition))


def _partitions(size: int) -> Iterator[Partition]:
    if size == 0:
        yield ()
        return
    for partition in _partitions(size - 1):
        yield (*partition, (size - 1,))
        for place, group in enumerate(partition):
            yield (*partition[:place], (*group, size - 1), *partition[place + 1 :])


def _weights(partition: Partition, size: int) -> Array:
    """What each affinity counts in the score of a partition, (K, K)."""
    weights = np.zeros((size, size))
    for group in partition:
        if len(group) > 1:
            weights[np.ix_(group, group)] = 1 / ((len(group) - 1) * size)
    np.fill_diagonal(weights, 0)
    return weights


def _first_best(scores: Array) -> list[int]:
    """The first place of each row (R, P) that holds its largest number, but for rounding."""
    return (scores >= scores.max(1, keepdims=True) - 1e-12).argmax(1).tolist()


def _best_of_tree(affinities: Array) -> Partition:
    """The best of the partitions along the tree that average linkage makes."""
    size = len(affinities)
    distances = 1 - affinities
    np.fill_diagonal(distances, 0)
    groups: dict[int, tuple[int, ...]] = {task: (task,) for task in range(size)}
    partitions: list[Partition] = [tuple(sorted(groups.values()))]
    for number, (one, other, *_) in enumerate(linkage(squareform(distances, checks=False), "average")):
        groups[size + number] = tuple(sorted(groups.pop(int(one)) + groups.pop(int(other))))
        partitions.append(tuple(sorted(groups.values())))
    scores = np.array([[grouping_score(affinities, each) for each in partitions]])
    return partitions[_first_best(scores)[0]]
