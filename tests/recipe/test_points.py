"""Grids and searches: every recipe that they stand for is checked."""

import itertools
from typing import Any

import pytest

from manyhead.errors import RecipeError
from manyhead.recipe.load import load_recipe
from manyhead.recipe.points import MOST_POINTS, grid_points


def refused(**changes: Any) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        load_recipe("cs224n", overrides=changes)
    return str(raised.value).splitlines()


def test_points_are_every_combination_the_last_key_changing_fastest() -> None:
    grid = {"stages.0.epochs": [1, 2], "tasks.*.head.dropout": [0.1, 0.2, 0.3], "seed": [5]}
    recipe = load_recipe("cs224n", overrides={"grid": grid}).recipe
    expected = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    assert grid_points(recipe) == expected
    for point in grid_points(recipe):
        loaded = load_recipe("cs224n", overrides={**point, "grid": {}}).recipe
        assert {task.head.model_dump()["dropout"] for task in loaded.tasks.values()} == {point["tasks.*.head.dropout"]}
    assert grid_points(recipe.with_changes(grid={})) == [{}]


def test_every_point_is_checked_and_a_mistake_is_told_once_at_its_value() -> None:
    grid = {"seed": list(range(9)), "tasks.sts.head": ["linear", "cosine"]}
    lines = refused(grid=grid)
    assert lines
    assert len(set(lines)) == len(lines)
    assert all('grid."tasks.sts.head".1: ' in line for line in lines)


def test_what_no_single_value_is_to_blame_for_names_the_combination() -> None:
    grid = {"encoder.dropout": [0.1, 0.0], "tasks.*.head.dropout": [0.1, 0.0]}
    (line,) = refused(**{"grid": grid, "stages.0.regularisers": ["r_drop"]})
    assert "grid: with encoder.dropout=0.0 and tasks.*.head.dropout=0.0: stages.0.regularisers.0: without" in line


def test_a_fault_below_the_key_of_a_grid_names_the_rest_of_the_key() -> None:
    (line,) = refused(grid={"stages.0.optimizer": ["adam", {"kind": "adam", "lr": -1}]})
    assert 'grid."stages.0.optimizer".1: lr: cannot be -1; expected a number > 0' in line


def test_values_that_a_search_tries_stand_beside_the_first_of_the_others() -> None:
    search = {"keys": {"encoder.dropout": [0.0, 0.1], "tasks.*.head.dropout": {"low": 0.0, "high": 0.5}}}
    lines = refused(**{"search": search, "stages.0.regularisers": ["r_drop"]})
    assert len(lines) == 1
    assert load_recipe("cs224n", overrides={"search": search}).recipe.search is not None


@pytest.mark.parametrize("key", ["manyhead", "name", "plugins", "grid.seed", "search.trials"])
def test_what_belongs_to_all_points_is_no_key_of_one(key: str) -> None:
    assert "is of all recipes of the study" in refused(grid={key: [1]})[0]
    assert "is of all recipes of the study" in refused(search={"keys": {key: [1]}})[0]


def test_the_largest_grid_is_checked_whole() -> None:
    load_recipe("cs224n", overrides={"grid": {"seed": list(range(MOST_POINTS))}})
    assert f"has {MOST_POINTS + 1} combinations" in refused(grid={"seed": list(range(MOST_POINTS + 1))})[0]
    assert "grid.seed.999: cannot be -1" in refused(grid={"seed": [*range(MOST_POINTS - 1), -1]})[0]


def test_mistakes_elsewhere_come_first() -> None:
    (line,) = refused(**{"grid": {"stages.0.epochs": [0]}, "stages.0.epochs": 0})
    assert "stages.0.epochs: cannot be 0" in line
    assert "grid" not in line
