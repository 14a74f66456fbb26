"""Prediction files of a run: id, target and what was predicted, a row an example."""

import csv
import io
from pathlib import Path

from manyhead.data.task_data import TaskData
from manyhead.files import write_text
from manyhead.inference.outputs import TaskPredictions
from manyhead.inference.writing import prediction_cells, prediction_columns, shortest
from manyhead.recipe.schema import Cell, Task


def write_predictions(path: Path, task: Task, data: TaskData, predictions: TaskPredictions) -> None:
    """Writes id, target and predictions of a split as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "target", *prediction_columns(task)])
    for row, cells in enumerate(prediction_cells(task, predictions, data.tokens.truncated)):
        writer.writerow([data.ids[row], target_cell(task, data, row), *cells])
    write_text(path, text.getvalue())


def target_cell(task: Task, data: TaskData, row: int) -> Cell:
    """The target of a row as a cell; empty where the split has none."""
    if data.targets is None:
        return ""
    value = data.targets[row].item()
    return shortest(value) if task.kind == "regression" else task.label_cells[int(value)]
