"""Files that every shipped recipe can read: a few rows of each class, with the columns that its tasks name."""

import csv
import json
from pathlib import Path

from manyhead.recipe.load import load_recipe
from manyhead.recipe.schema import Task
from manyhead.recipe.shipped import shipped_recipes

ROWS = 12


def write_all(folder: Path) -> Path:
    """The files of all recipes; those of one name are read alike by all of them."""
    for recipe in shipped_recipes():
        for task in load_recipe(recipe.name).recipe.tasks.values():
            write_files(task, folder)
    return folder


def write_files(task: Task, folder: Path) -> None:
    """Train, dev and test files of a task, where they are not there yet."""
    low, high = task.range or (0.0, 0.0)
    targets = task.label_cells or [low + (high - low) * row / (ROWS - 1) for row in range(ROWS)]
    for reference in (task.files.train, task.files.dev, task.files.test):
        if not isinstance(reference, str) or (folder / reference).exists():
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
