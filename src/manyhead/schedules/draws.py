"""Randomness that is a pure function of a key: no generator state is kept, stored or shared.

A key (seed, names and numbers) names one endless sequence of random words, and any stretch of it can be asked for
directly. Only raw words of the Philox generator are used, whose values numpy guarantees to stay; what its
distributions and shuffles return may change between versions, and a resumed run must not.
"""

import json
import operator
from collections.abc import Callable
from hashlib import blake2b
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from manyhead.schedules.base import Indices

T = TypeVar("T")
Key = tuple[int | str, ...]

_LARGEST_COMPACT = 2**31 - 1
_WORDS_PER_COUNT = 4
"""Words that Philox makes of each value of its counter."""


def random_words(count: int, key: Key, start: int = 0) -> NDArray[np.uint64]:
    """Words ``start`` to ``start + count`` of the sequence that ``key`` names, uniform in [0, 2^64), shape (count,)."""
    digest = blake2b(json.dumps(key, default=operator.index).encode(), digest_size=16).digest()
    counter, skipped = divmod(start, _WORDS_PER_COUNT)
    philox = np.random.Philox(key=int.from_bytes(digest, "big"), counter=counter)
    return philox.random_raw(skipped + count)[skipped:]


def uniforms(count: int, key: Key) -> NDArray[np.float64]:
    """Numbers uniform in [0, 1), shape (count,)."""
    return np.ldexp((random_words(count, key) >> np.uint64(11)).astype(np.float64), -53)


def permutations(size: int, key: Key, first: int = 0, count: int = 1) -> Indices:
    """Permutations ``first`` to ``first + count`` of range(size) in the key's endless sequence, shape (count, size)."""
    words = random_words(count * size, key, first * size).reshape(count, size)
    return words.argsort(axis=1, kind="stable").astype(np.int64, copy=False)


def compact(indices: NDArray[np.integer]) -> NDArray[np.integer]:
    """The same indices, in half the memory where they are small enough."""
    return indices.astype(np.int32) if indices.size and indices.max() <= _LARGEST_COMPACT else indices


def earlier_occurrences(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """How often each entry's label stands before it, shape (n,). ``labels`` (n,) are few different numbers."""
    earlier = np.empty(len(labels), np.int32 if len(labels) <= _LARGEST_COMPACT else np.int64)
    for label in np.unique(labels):
        is_label = labels == label
        earlier[is_label] = np.arange(np.count_nonzero(is_label))
    return earlier


class Latest(Generic[T]):
    """A pure function of a number that remembers its latest value: steps are asked for mostly in order."""

    def __init__(self, function: Callable[[int], T]) -> None:
        self._function = function
        self._latest: tuple[int, T] | None = None

    def __call__(self, number: int) -> T:
        """The function's value at ``number``."""
        if self._latest is None or self._latest[0] != number:
            self._latest = None  # the value before makes room for this one
            self._latest = (number, self._function(number))
        return self._latest[1]
