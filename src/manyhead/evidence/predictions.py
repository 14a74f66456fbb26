"""A run's prediction files, read back."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from manyhead.data.delimited import FIELD_CHARS
from manyhead.errors import CheckpointError
from manyhead.evaluation.predictions import text_columns
from manyhead.evaluation.scored import Scored
from manyhead.recipe.schema import Task, cell_text


def predictions_path(run: Path, task: str, split: str = "dev") -> Path:
    """Where a run keeps what it predicted."""
    return run / "predictions" / f"{task}.{split}.csv"


def read_predictions(run: Path, name: str, task: Task, split: str = "dev") -> Scored:
    """What the run in ``run`` predicted for ``split`` of the task ``name``, declared as ``task``.

    Raises `CheckpointError` where the file is missing, cut short or not what a run writes.
    """
    path = predictions_path(run, name, split)
    try:
        csv.field_size_limit(FIELD_CHARS)
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        if not rows:
            raise ValueError("it has no rows")
        cut = next((number for number, row in enumerate(rows, 1) if None in row or None in row.values()), None)
        if cut is not None:
            raise ValueError(f"row {cut} has other columns than the header")
        return _scored(name, task, rows)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise CheckpointError(
            f"{path}: cannot be read: {error}; expected the predictions of a finished run; "
            "go on with the run by manyhead train --resume, or name another run"
        ) from error


def _scored(name: str, task: Task, rows: list[dict[str, str]]) -> Scored:
    columns = text_columns(task)
    texts = [tuple(row[column] for column in columns) for row in rows] if columns[0] in rows[0] else ()
    common: dict[str, Any] = {
        "ids": [row["id"] for row in rows],
        "texts": texts,
        "truncated": np.array([row["truncated"] == "1" for row in rows]),
    }
    if task.kind == "regression":
        targets, values = (np.array([float(row[key]) for row in rows]) for key in ("target", "prediction"))
        return Scored(name, task.kind, task.metric, targets=targets, values=values, range=task.range, **common)
    classes = {cell_text(cell): index for index, cell in enumerate(task.label_cells)}
    targets, values = (np.array([_class(classes, row[key]) for row in rows]) for key in ("target", "prediction"))
    names = task.label_names
    probabilities = np.array([[float(row[f"probability_{label}"]) for label in names] for row in rows])
    return Scored(
        name,
        task.kind,
        task.metric,
        targets=targets,
        values=values,
        probabilities=probabilities,
        labels=tuple(names),
        **common,
    )


def _class(classes: dict[str, int], cell: str) -> int:
    found = classes.get(cell, classes.get(cell.lower()))
    if found is None:
        raise ValueError(f"'{cell}' is none of the labels {', '.join(classes)}")
    return found
