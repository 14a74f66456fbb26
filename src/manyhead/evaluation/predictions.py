"""Prediction files of a run: id, target, texts and what was predicted, a row an example."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from manyhead.data.task_data import TaskData
from manyhead.files import csv_writer, write_text
from manyhead.inference.outputs import TaskPredictions
from manyhead.inference.writing import prediction_cells, prediction_columns, shortest
from manyhead.recipe.schema import Cell, Task


def text_columns(task: Task) -> list[str]:
    """Names of the columns that hold an example's texts."""
    return ["text"] if len(task.text) == 1 else [f"text_{number}" for number in (1, 2)]


def write_predictions(
    path: Path, task: Task, data: TaskData, predictions: TaskPredictions, texts: Iterable[Sequence[str]] | None = None
) -> None:
    """Writes id, target, the ``texts`` if given, and predictions of a split as CSV."""
    names = [] if texts is None else text_columns(task)
    rows = ((),) * data.n_examples if texts is None else texts
    text = io.StringIO(newline="")
    writer = csv_writer(text)
    writer.writerow(["id", "target", *names, *prediction_columns(task)])
    cells = prediction_cells(task, predictions, data.tokens.truncated)
    for row, (own, found) in enumerate(zip(rows, cells, strict=True)):
        writer.writerow([data.ids[row], target_cell(task, data, row), *own, *found])
    write_text(path, text.getvalue())


def target_cell(task: Task, data: TaskData, row: int) -> Cell:
    """The target of a row as a cell; empty where the split has none."""
    if data.targets is None:
        return ""
    value = data.targets[row].item()
    return shortest(value) if task.kind == "regression" else task.label_cells[int(value)]
