"""Every recipe that ships is built on a tiny encoder and trains two steps a stage on files of its own shape."""

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from manyhead.build import train
from manyhead.errors import UsageError
from manyhead.recipe.load import load_recipe
from manyhead.recipe.points import grid_points
from manyhead.recipe.schema import Recipe
from manyhead.recipe.shipped import shipped_recipes
from recipe_data import write_all
from tiny import tiny_encoder

RECIPES = {recipe.name: recipe for recipe in shipped_recipes()}
COUNTS = {
    "": 7, "affinity": 1, "balancing": 20, "regularisers": 6, "s1": 18, "s2": 26, "s3": 18, "s4": 39, "schedules": 10,
    "stages": 6,
}  # fmt: skip
STEPS = 2


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("data"))


def tiny(recipe: Recipe, encoder: Path) -> dict[str, Any]:
    """What makes a recipe small, and one of its grid's points."""
    sizes = {
        f"stages.{index}.{key}": value
        for index in range(len(recipe.stages))
        for key, value in {"max_steps": STEPS, "batch_size": 6}.items()
    }
    one = grid_points(recipe)[0] | {"grid": {}, "search": None}
    machine = {"threads": 1, "precision": "fp32"}
    return {**one, **sizes, **machine, "encoder.checkpoint": str(encoder), "encoder.max_tokens": 40}


def test_all_recipes_are_walked() -> None:
    assert Counter(name.rpartition("/")[0] for name in RECIPES) == COUNTS
    assert len(RECIPES) == 151


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_shipped_recipe_trains(name: str, encoder: Path, data: Path, tmp_path: Path) -> None:
    recipe = load_recipe(name).recipe
    loaded = load_recipe(name, overrides=tiny(recipe, encoder), data_dir=data)
    if name == "balancing/cagrad" and find_spec("cvxpy") is None:
        with pytest.raises(UsageError, match=r"cagrad.*cvxpy"):
            train(loaded, out=tmp_path / "run")
        return
    done = train(loaded, out=tmp_path / "run")
    assert done.summary["steps"] == STEPS * len(recipe.stages)
    assert done.summary["dev"]["tasks"].keys() == {
        name for name, task in recipe.tasks.items() if task.files.dev is not None
    }
