"""A prediction file as `Scored`, read leniently: rows that cannot be placed are left out and counted."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from manyhead.data.delimited import FIELD_CHARS
from manyhead.evaluation.metrics import METRICS
from manyhead.evaluation.scored import Scored
from manyhead.report.cells import parsed
from manyhead.report.text import shortened

MAX_SCORE = 1e30
"""Scores beyond it, either way, are taken for none: their squares and cubes could not be added up."""

Row = dict[str | None, Any]


@dataclass(frozen=True)
class Predictions:
    """What a run predicted for a task's dev rows. ``scored`` is None where no row could be used."""

    scored: Scored | None
    rows: int
    """In the file."""
    unplaced: int
    """Rows whose target or prediction fits no class or is no number."""


def is_regression(task: Mapping[str, Any]) -> bool:
    """Whether a recipe's task predicts scores, judged by what there is of it."""
    if task.get("kind") in ("classification", "regression"):
        return task["kind"] == "regression"
    metric = task.get("metric")
    return isinstance(metric, str) and metric in METRICS and "regression" in METRICS[metric].kinds


def read_predictions(path: Path, name: str, task: Mapping[str, Any]) -> Predictions:
    """The rows of ``path`` that can be used, ``task`` being what the recipe says of it, as far as it does.

    Raises OSError or ValueError where the file cannot be read.
    """
    csv.field_size_limit(FIELD_CHARS)
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        try:
            rows = list(csv.DictReader(file))
        except csv.Error as error:
            raise ValueError(str(error)) from error
    regression = is_regression(task)
    cells = {} if regression else _class_cells(rows, task.get("labels"))
    placed = _scores(rows) if regression else _classes(rows, cells)
    if not placed:
        return Predictions(None, len(rows), len(rows))
    used = [rows[place] for place, _, _ in placed]
    dtype = np.float64 if regression else np.int64
    metric = task.get("metric")
    scored = Scored(
        name,
        "regression" if regression else "classification",
        metric if isinstance(metric, str) and metric in METRICS else ("pearson" if regression else "accuracy"),
        [row.get("id") or "" for row in used],
        np.array([target for _, target, _ in placed], dtype),
        np.array([value for _, _, value in placed], dtype),
        None if regression else _probabilities(used, list(cells.values())),
        _texts(used),
        np.array([(row.get("truncated") or "").lower() in ("true", "1") for row in used]),
        tuple(shortened(name, 80) for name in cells.values()),
        _range(task.get("range")) if regression else None,
    )
    return Predictions(scored, len(rows), len(rows) - len(placed))


def _scores(rows: Sequence[Row]) -> list[tuple[int, float, float]]:
    pairs = ((parsed(row.get("target") or ""), parsed(row.get("prediction") or "")) for row in rows)
    return [(place, x, y) for place, (x, y) in enumerate(pairs) if _usable(x) and _usable(y)]


def _usable(value: float | None) -> TypeGuard[float]:
    return value is not None and abs(value) <= MAX_SCORE


def _classes(rows: Sequence[Row], cells: Mapping[str, str]) -> list[tuple[int, int, int]]:
    """Cells match a class as text, else as equal numbers."""
    by_text = {text.lower(): index for index, text in reversed(list(enumerate(cells)))}
    by_text |= {text: index for index, text in enumerate(cells)}
    by_number = {value: index for index, text in enumerate(cells) if (value := parsed(text)) is not None}

    def place(cell: str) -> int | None:
        found = by_text.get(cell, by_text.get(cell.lower()))
        if found is None and (value := parsed(cell)) is not None:
            found = by_number.get(value)
        return found

    pairs = ((place(row.get("target") or ""), place(row.get("prediction") or "")) for row in rows)
    return [(index, x, y) for index, (x, y) in enumerate(pairs) if x is not None and y is not None]


def _class_cells(rows: Sequence[Row], labels: object) -> dict[str, str]:
    """Cell to name of each class, in order: as the recipe says, else the cells that occur."""
    if isinstance(labels, Mapping) and labels:
        return {_cell(cell): str(name) for cell, name in labels.items()}
    if isinstance(labels, Sequence) and not isinstance(labels, str) and labels:
        return {_cell(cell): _cell(cell) for cell in labels}
    named = {row.get("prediction") or "": row.get("label") or row.get("prediction") or "" for row in rows}
    occurring = sorted({row.get("target") or "" for row in rows} | named.keys())
    return {cell: named.get(cell, cell) for cell in occurring if cell}


def _cell(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _probabilities(rows: Sequence[Row], names: Sequence[str]) -> Any:
    """(E, C), or None where a column is missing or a cell is no probability."""
    columns = [f"probability_{name}" for name in names]
    if not set(columns) <= rows[0].keys():
        return None
    values = [[parsed(row.get(column) or "") for column in columns] for row in rows]
    if any(value is None or not 0 <= value <= 1 for row in values for value in row):
        return None
    return np.array(values, np.float64)


def _texts(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    for columns in (("text",), ("text_1", "text_2")):
        if set(columns) <= rows[0].keys():
            return [tuple(row.get(column) or "" for column in columns) for row in rows]
    return []


def _range(bounds: object) -> tuple[float, float] | None:
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
        return None
    ends = [end for end in bounds if isinstance(end, int | float) and not isinstance(end, bool)]
    usable = [float(end) for end in ends if abs(end) <= MAX_SCORE]
    return (usable[0], usable[1]) if len(usable) == 2 and usable[1] > usable[0] else None
