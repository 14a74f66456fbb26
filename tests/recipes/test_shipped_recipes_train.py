"""Every recipe that ships is built on a tiny encoder and trains two steps on files of its own shape."""

import csv
import json
from pathlib import Path

import pytest

from manyhead.build import train
from manyhead.recipe.load import load_recipe
from manyhead.recipe.schema import Recipe
from manyhead.recipe.shipped import shipped_recipes
from tiny import tiny_encoder

RECIPES = {recipe.name: recipe for recipe in shipped_recipes()}
ROWS = 12


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def write_files(recipe: Recipe, folder: Path) -> None:
    """Train and dev files with the columns that the recipe's tasks read, a few rows of each class."""
    for task in recipe.tasks.values():
        low, high = task.range or (0.0, 0.0)
        targets = task.label_cells or [low + (high - low) * row / ROWS for row in range(ROWS)]
        for reference in (task.files.train, task.files.dev, task.files.test):
            if not isinstance(reference, str):
                continue
            rows = [
                {column: f"{reference} row {row} of {column}" for column in task.text}
                | {"id": f"id{row}", task.target: targets[row % len(targets)]}
                for row in range(ROWS)
            ]
            with (folder / reference).open("w", encoding="utf-8", newline="") as file:
                if reference.endswith(".jsonl"):
                    file.writelines(json.dumps(row) + "\n" for row in rows)
                else:
                    writer = csv.DictWriter(file, rows[0].keys(), delimiter="\t")
                    writer.writeheader()
                    writer.writerows(rows)


def test_all_recipes_are_walked() -> None:
    assert sorted(RECIPES) == ["cs224n", "cs224n-cpu", "cs224n-siamese", "quickstart", "template"]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_shipped_recipe_trains(name: str, encoder: Path, tmp_path: Path) -> None:
    overrides = {"encoder.checkpoint": str(encoder), "encoder.max_tokens": 40, "threads": 1, "precision": "fp32"}
    data = tmp_path / "data"
    data.mkdir()
    loaded = load_recipe(name, overrides=overrides, data_dir=data)
    write_files(loaded.recipe, data)
    steps = {f"stages.{index}.max_steps": 2 for index in range(len(loaded.recipe.stages))}
    done = train(load_recipe(name, overrides={**overrides, **steps}, data_dir=data), out=tmp_path / "run")
    assert done.summary["steps"] == 2 * len(loaded.recipe.stages)
    assert done.summary["dev"]["tasks"].keys() == {
        name for name, task in loaded.recipe.tasks.items() if task.files.dev is not None
    }
