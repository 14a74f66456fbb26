from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from manyhead.data.selection import halves_of
from manyhead.errors import DataError
from manyhead.recipe.schema import Recipe, SelectOn


def recipe(share: float | None, seed: int = 1) -> Recipe:
    options: Any = SimpleNamespace(select_on=None if share is None else SelectOn(dev=share), seed=seed)
    return cast("Recipe", options)


def test_without_select_on_every_row_picks_and_is_scored() -> None:
    picking, scored = halves_of(recipe(None), "a", 5)
    assert picking.tolist() == scored.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("n_rows", [10, 101, 2000])
def test_each_row_is_in_one_half_and_shares_are_kept(share: float, n_rows: int) -> None:
    picking, scored = halves_of(recipe(share), "a", n_rows)
    assert sorted([*picking, *scored]) == list(range(n_rows))
    assert len(picking) == round(share * n_rows)
    assert (np.diff(picking) > 0).all()
    assert (np.diff(scored) > 0).all()


def test_halves_do_not_depend_on_the_runs_seed_and_are_mixed() -> None:
    first, second = (halves_of(recipe(0.5, seed), "a", 1000) for seed in (1, 2))
    assert first.scored.tolist() == second.scored.tolist()
    assert 400 < (first.picking < 500).sum() * 2 < 600


@pytest.mark.parametrize(("share", "n_rows"), [(0.5, 1), (0.01, 10), (0.99, 10), (0.5, 0)])
def test_a_half_without_rows_is_refused(share: float, n_rows: int) -> None:
    with pytest.raises(DataError, match=r"select_on.dev: .* cannot be divided"):
        halves_of(recipe(share), "a", n_rows)
