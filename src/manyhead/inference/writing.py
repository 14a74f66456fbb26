"""Predictions as columns of text: what a table of predictions holds, and the course's submission files."""

from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
from numpy.typing import NDArray

from manyhead.inference.outputs import TaskPredictions
from manyhead.recipe.schema import Cell, Task

CS224N_TITLES = {
    "classes": "Predicted_Sentiment",
    "yes/no": "Predicted_Is_Paraphrase",
    "score": "Predicted_Similiary",
}
"""The course's column titles, the last one spelled as its checker wants it."""


def prediction_columns(task: Task) -> list[str]:
    """Names of the columns that `prediction_cells` gives."""
    if task.kind == "regression":
        return ["prediction", "truncated"]
    return ["prediction", "label", *(f"probability_{name}" for name in task.label_names), "truncated"]


def prediction_cells(task: Task, predictions: TaskPredictions, truncated: NDArray[np.bool_]) -> Iterator[list[Cell]]:
    """For each example the cells of `prediction_columns`: the value its target column would hold comes first."""
    if predictions.probabilities is None:
        for score, cut in zip(predictions.values.tolist(), truncated.tolist(), strict=True):
            yield [shortest(score), int(cut)]
        return
    cells, names = task.label_cells, task.label_names
    for best, row, cut in zip(
        predictions.values.tolist(), predictions.probabilities.tolist(), truncated.tolist(), strict=True
    ):
        yield [cells[best], names[best], *(shortest(value) for value in row), int(cut)]


def write_cs224n(file: IO[str], task: Task, ids: Sequence[str], predictions: TaskPredictions) -> None:
    """Writes the course's submission format: a header line, then ``ID , VALUE`` lines, each ending in a space."""
    kind = "score" if task.kind == "regression" else "yes/no" if len(task.label_names) == 2 else "classes"
    if task.kind == "classification" and not task.is_pair:
        kind = "classes"
    file.write(f"id \t {CS224N_TITLES[kind]} \n")
    for name, value in zip(ids, predictions.values.tolist(), strict=True):
        cell = value if task.kind == "regression" else task.label_cells[value]
        file.write(f"{name} , {cell} \n")


def shortest(value: float) -> float:
    """A 32-bit float as the shortest decimal that reads back as it."""
    return float(str(np.float32(value)))
