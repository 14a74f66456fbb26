"""The endless sequence of batches of one task, from which every schedule takes its parts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from manyhead.errors import Problem, RecipeError
from manyhead.schedules.base import Indices, StreamOptions
from manyhead.schedules.draws import Key, Latest, compact, permutations, random_words

_SORTED_AT_ONCE = 1 << 16


class BatchStream:
    """Batches of row numbers of one task's training split, one pass over the rows after another.

    A pass is a random permutation of the rows in use (all, or the subsample), cut into batches of ``batch_size``; its
    last batch holds what is left. With ``length_window`` N, the examples of each N consecutive batches are sorted by
    length, cut into batches again, and those batches put in random order, the pass's short batch staying last. With
    ``groups``, a pass is as long as before but holds every group equally often, up to one example: rows of small
    groups repeat, rows of large ones may wait for a later pass; each group cycles through permutations of its rows.

    Everything is a pure function of ``size``, ``options``, ``lengths``, ``key`` and the number asked for. The order
    depends on all of ``key``; the subsample on its seed and task only, so every stage uses the same rows, and a
    smaller subsample is part of a larger one.

    Args:
        size: Rows of the training split.
        options: How rows become batches.
        key: (seed, stage, task); the stage by index or by a name of its own.
        lengths: Tokens of each row, shape (size,); needed for ``length_window``.

    Raises:
        RecipeError: the split is empty or an option is out of range.
        ValueError: ``lengths`` or ``groups`` do not have one value a row.
    """

    def __init__(
        self,
        size: int,
        options: StreamOptions,
        key: tuple[int, int | str, str],
        lengths: NDArray[np.integer] | None = None,
    ) -> None:
        problems = _problems(size, options, key)
        if problems:
            raise RecipeError(problems)
        if options.length_window and lengths is None:
            raise ValueError("length_window needs lengths")
        for name, values in (("lengths", lengths), ("groups", options.groups)):
            if values is not None and np.shape(values) != (size,):
                raise ValueError(f"{name} has shape {np.shape(values)}; expected ({size},), one value a row")
        self.options = options
        self._key = key
        self._lengths = lengths
        self._size = size
        self._subsample = _subsample(size, options.subsample, ("subsample", key[0], key[2]))
        self._groups = None if options.groups is None else _split(self._subsample, np.asarray(options.groups))
        self._pass = Latest(self._drawn_pass)

    @property
    def rows(self) -> Indices:
        """The rows in use, ascending."""
        return np.arange(self._size) if self._subsample is None else self._subsample.astype(np.int64)

    @property
    def pass_examples(self) -> int:
        """Examples in a pass: the rows in use."""
        return self._size if self._subsample is None else len(self._subsample)

    @property
    def pass_batches(self) -> int:
        """Batches in a pass."""
        return -(-self.pass_examples // self.options.batch_size)

    @property
    def epoch_examples(self) -> int:
        """Examples that count as one epoch of this task: a pass, or the option ``epoch_examples``."""
        return self.options.epoch_examples or self.pass_examples

    @property
    def epoch_batches(self) -> int:
        """The fewest batches from the start of a pass that hold ``epoch_examples``."""
        passes, rest = divmod(self.epoch_examples, self.pass_examples)
        return passes * self.pass_batches + -(-rest // self.options.batch_size)

    def examples(self, start: int, stop: int) -> int:
        """Examples in the batches ``start`` to ``stop`` (exclusive), exactly."""
        return self._examples_before(stop) - self._examples_before(start)

    def batch(self, index: int) -> Indices:
        """Rows of batch ``index`` >= 0, shape (E,) with 1 <= E <= batch_size. Raises IndexError below 0."""
        if index < 0:
            raise IndexError(f"batch {index}; the first is 0")
        number, place = divmod(index, self.pass_batches)
        start = place * self.options.batch_size
        return self._pass(number)[start : start + self.options.batch_size].astype(np.int64)

    def _examples_before(self, index: int) -> int:
        passes, batches = divmod(index, self.pass_batches)
        return passes * self.pass_examples + batches * self.options.batch_size

    def _drawn_pass(self, number: int) -> NDArray[np.integer]:
        order = compact(permutations(self.pass_examples, ("pass", *self._key), number)[0])
        rows = self._subsample
        if self._groups is not None:
            rows = _balanced(self._groups, self.pass_examples, number, ("group", *self._key))
        rows = order if rows is None else rows[order]
        if self._lengths is not None and self.options.length_window:
            size, window = self.options.batch_size, self.options.length_window
            rows = _alike(rows, self._lengths, size, window, ("window", *self._key, number))
        return rows


def rows_in_use(size: int, share: float | None) -> int:
    """How many of ``size`` rows a subsample of ``share`` holds: a share below 1, or a number of rows; None: all."""
    if share is None:
        return size
    return max(1, round(share * size)) if share < 1 else min(int(share), size)


def _problems(size: int, options: StreamOptions, key: tuple[int, int | str, str]) -> list[Problem]:
    _, stage, task = key
    place = f"stages.{stage}"
    problems: list[Problem] = []
    if size < 1:
        do = "add rows to the file, or leave the task out of the stage"
        problems.append(Problem("no rows to train on", key=f"tasks.{task}.files.train", expected="one or more", do=do))
    if options.batch_size < 1:
        key_ = f"{place}.batch_size"
        problems.append(Problem(f"{options.batch_size} for '{task}'", key=key_, expected="1 or more"))
    share = options.subsample
    if share is not None and not (0 < share < 1 or (share >= 1 and float(share).is_integer())):
        expected = "a share between 0 and 1, or a whole number of rows"
        problems.append(Problem(f"{share}", key=f"{place}.subsample.{task}", expected=expected))
    if options.epoch_examples is not None and options.epoch_examples < 1:
        key_ = f"{place}.epoch_examples.{task}"
        problems.append(Problem(f"{options.epoch_examples}", key=key_, expected="1 or more"))
    if options.length_window < 0:
        key_ = f"{place}.length_window"
        problems.append(Problem(f"{options.length_window}", key=key_, expected="0 (none) or more"))
    return problems


def _subsample(size: int, share: float | None, key: Key) -> NDArray[np.integer] | None:
    """The rows in use, ascending: a share (below 1; at least one row) or a number of them (at most all); None: all."""
    if share is None:
        return None
    return compact(np.sort(permutations(size, key)[0][: rows_in_use(size, share)]))


def _split(rows: NDArray[np.integer] | None, groups: NDArray[np.integer]) -> list[NDArray[np.integer]]:
    """The rows of each group; ``rows`` None: all."""
    used = groups if rows is None else groups[rows]
    places = [np.flatnonzero(used == group) for group in np.unique(used)]
    return [compact(each if rows is None else rows[each]) for each in places]


def _balanced(groups: Sequence[NDArray[np.integer]], count: int, number: int, key: Key) -> NDArray[np.integer]:
    """The ``count`` rows of pass ``number``, not in random order yet.

    The groups take turns: turn t of the whole stream is group t mod G's (t div G)-th. So groups differ by at most one
    in any stretch, and each goes on in the next pass where it stopped.
    """
    rows = np.empty(count, dtype=np.result_type(*groups))
    for group, members in enumerate(groups):
        start = (group - number * count) % len(groups)
        mine = rows[start :: len(groups)]
        cycle, place = divmod((number * count + start) // len(groups), len(members))
        cycles = -(-(place + len(mine)) // len(members))
        order = permutations(len(members), (*key, group), cycle, cycles).ravel()
        mine[:] = members[order[place : place + len(mine)]]
    return rows


def _alike(
    rows: NDArray[np.integer], lengths: NDArray[np.integer], size: int, window: int, key: Key
) -> NDArray[np.integer]:
    """The rows of a pass with batches of like lengths, made within each ``window`` batches of ``size``."""
    full, short = divmod(len(rows), size)
    order_words = random_words(full + 1, key)
    stretch = size * window * -(-_SORTED_AT_ONCE // (size * window))
    for start in range(0, len(rows), stretch):
        part = rows[start : start + stretch]
        part[:] = part[np.lexsort((lengths[part], np.arange(len(part)) // (size * window)))]
    if short:
        # The short batch is last in the pass, but not always the longest: its place among the lengths is drawn.
        first = full // window * window
        start = size * (first + int(order_words[full]) % (full - first + 1))
        rows = np.concatenate([rows[:start], rows[start + short :], rows[start : start + short]])
    batches = rows[: full * size].reshape(full, size)
    batches = batches[np.lexsort((order_words[:full], np.arange(full) // window))]
    return np.concatenate([batches.ravel(), rows[full * size :]])
