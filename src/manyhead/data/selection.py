"""Dividing dev: rows that pick checkpoints, and rows that are scored.

A score of the rows that picked the checkpoint is too good. ``select_on`` keeps the two apart.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from manyhead.data.task_data import TaskData
from manyhead.errors import DataError, Problem
from manyhead.recipe.schema import Recipe

_SEED = 0x5E1EC7
"""Not the run's: runs of several seeds are scored on the same rows, or they could not be compared."""


class Halves(NamedTuple):
    """Row numbers of a split, both in order: those that pick checkpoints, and those that are scored."""

    picking: NDArray[np.int64]
    scored: NDArray[np.int64]


def halves_of(recipe: Recipe, task: str, n_rows: int) -> Halves:
    """How the dev rows of ``task`` are divided, a pure function of the share and ``n_rows``; see `SelectOn`.

    Without ``select_on`` all rows do both. Raises `DataError` where one of the halves would be empty.
    """
    rows = np.arange(n_rows)
    if recipe.select_on is None:
        return Halves(rows, rows)
    count = round(recipe.select_on.dev * n_rows)
    if not 0 < count < n_rows:
        problem = f"{n_rows} dev rows of {task} cannot be divided by {recipe.select_on.dev:g}"
        expected = "at least one row that picks checkpoints and one that is scored"
        do = "give more dev rows, or leave it out"
        raise DataError([Problem(problem, key="select_on.dev", expected=expected, do=do)])
    shuffled = np.random.default_rng(_SEED).permutation(n_rows)
    return Halves(np.sort(shuffled[:count]), np.sort(shuffled[count:]))


def selection_note(recipe: Recipe) -> str:
    """What to say beside dev scores of the best checkpoint: whether the rows that are scored also picked it."""
    if recipe.select_on is None:
        return "selected on these rows, so a little too good; select_on: {dev: 0.5} keeps them apart"
    return f"the checkpoint was selected on other rows: {recipe.select_on.dev:.0%} of dev"


def picking_rows(recipe: Recipe, dev: Mapping[str, TaskData]) -> dict[str, TaskData]:
    """The dev rows of each task that pick checkpoints."""
    return {name: _taken(data, halves_of(recipe, name, data.n_examples).picking) for name, data in dev.items()}


def scored_rows(recipe: Recipe, dev: Mapping[str, TaskData]) -> dict[str, TaskData]:
    """The dev rows of each task that are scored."""
    return {name: _taken(data, halves_of(recipe, name, data.n_examples).scored) for name, data in dev.items()}


def _taken(data: TaskData, rows: NDArray[np.int64]) -> TaskData:
    return data if len(rows) == data.n_examples else data.take(rows)
