"""What `predict` writes: the input's columns and what is predicted, as CSV, as JSON lines, or for the course."""

import csv
import json
import math
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import IO, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from manyhead.cli.output import written
from manyhead.cli.rows import Input, InputRow
from manyhead.data.table import Cell, Nested
from manyhead.errors import Problem, UsageError
from manyhead.files import writing
from manyhead.inference.outputs import TaskPredictions
from manyhead.inference.writing import prediction_cells, prediction_columns, write_cs224n
from manyhead.recipe.schema import Task, cell_text


@dataclass(frozen=True)
class Chunk:
    """Some rows, in order: what kept each from being predicted, or None; and the predictions of all others."""

    rows: Sequence[InputRow]
    problems: Sequence[str | None]
    predictions: TaskPredictions
    truncated: NDArray[np.bool_]


class Writer(Protocol):
    """Takes chunks, in order; `finish` writes what had to wait for the last one."""

    def add(self, chunk: Chunk) -> None:
        """Takes a chunk."""
        ...

    def finish(self) -> None:
        """Takes no more."""
        ...


class _LineFeeds:
    """Ends rows in LF. The csv module quotes a CR inside a cell only where rows end in CR LF."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, row: str) -> int:
        """Takes one whole row."""
        return self._file.write(row.removesuffix("\r\n") + "\n")


class CsvWriter:
    """A table with a header; written as it comes."""

    def __init__(self, file: IO[str], task: Task, source: Input) -> None:
        self._task = task
        self._columns = prediction_columns(task)
        self._writer = csv.writer(_LineFeeds(file), lineterminator="\r\n")
        self._writer.writerow([*kept_columns(task, source), *self._columns])

    def add(self, chunk: Chunk) -> None:
        """Writes the chunk; cells of rows without a prediction are empty."""
        for row, predicted in _with_cells(self._task, chunk):
            cells = [*row.cells, *(predicted or [None] * len(self._columns))]
            self._writer.writerow([_text(cell) for cell in cells])

    def finish(self) -> None:
        """Nothing is left."""


class JsonRows:
    """The rows as what JSON can hold; null where there is no prediction."""

    def __init__(self, task: Task, source: Input) -> None:
        self._task = task
        self._columns = prediction_columns(task)
        self._names = _distinct(kept_columns(task, source), self._columns)
        self.rows: list[dict[str, Any]] = []

    def of(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """The objects of a chunk."""
        for row, predicted in _with_cells(self._task, chunk):
            found = dict(zip(self._names, map(_plain, row.cells), strict=True))
            values = predicted or [None] * len(self._columns)
            found |= zip(self._columns, map(_plain, values), strict=True)
            found["truncated"] = None if predicted is None else bool(found["truncated"])
            yield found

    def add(self, chunk: Chunk) -> None:
        """Keeps the objects."""
        self.rows += self.of(chunk)

    def finish(self) -> None:
        """Nothing is left."""


class JsonlWriter:
    """An object a line; written as it comes."""

    def __init__(self, file: IO[str], task: Task, source: Input) -> None:
        self._file = file
        self._rows = JsonRows(task, source)

    def add(self, chunk: Chunk) -> None:
        """Writes the chunk."""
        for found in self._rows.of(chunk):
            self._file.write(json.dumps(found, ensure_ascii=False, allow_nan=False) + "\n")

    def finish(self) -> None:
        """Nothing is left."""


class Cs224nWriter:
    """The course's format: id and prediction of each row; written at the end. Every row needs a text.

    The id column must be there: see `check_id`.
    """

    def __init__(self, file: IO[str], task: Task, source: Input) -> None:
        self._file = file
        self._task = task
        self._id = source.columns.index(_id_column(task))
        self._ids: list[str] = []
        self._found: list[TaskPredictions] = []

    def add(self, chunk: Chunk) -> None:
        """Keeps the chunk. Raises `UsageError` for a row that has no prediction: a submission has no gaps."""
        for row, problem in zip(chunk.rows, chunk.problems, strict=True):
            if problem is not None:
                raise UsageError(
                    f"line {row.line}: {problem}; expected a text in every row for --format cs224n; mend it"
                )
            self._ids.append(_text(row.cells[self._id]))
        self._found.append(chunk.predictions)

    def finish(self) -> None:
        """Writes all."""
        if not self._found:
            raise UsageError("the input has no rows; expected some for --format cs224n")
        write_cs224n(self._file, self._task, self._ids, _joined(self._found))


WRITERS = {"csv": CsvWriter, "jsonl": JsonlWriter, "cs224n": Cs224nWriter}


@contextmanager
def opened(path: Path | None) -> Generator[IO[str]]:
    """The file to write: stdout for None; a file is replaced by one rename when the block ends well.

    Pipes and devices are written to as they are. Raises `WriteError` where it cannot be written.
    """
    if path is None:
        with written(sys.stdout):
            yield sys.stdout
        return
    is_special = path.exists() and not path.is_file()
    place = path if is_special else path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with writing(str(path)), place.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            if not is_special:
                os.fsync(file.fileno())
                place.replace(path)
    finally:
        if not is_special:
            place.unlink(missing_ok=True)


def kept_columns(task: Task, source: Input) -> list[str]:
    """Names that the input's columns get in the output: ``input_NAME`` for those named as what is predicted."""
    predicted = set(prediction_columns(task))
    taken = predicted.union(source.columns)
    kept: list[str] = []
    for name in source.columns:
        if name in predicted:
            kept.append(_free(chain([f"input_{name}"], (f"input_{number}_{name}" for number in count(2))), taken))
        else:
            kept.append(name)
    return kept


def check_id(name: str, task: Task, source: Input) -> None:
    """Raises `UsageError` where the input of the task ``name`` has no id column, or several."""
    column = _id_column(task)
    found = source.columns.count(column)
    if found != 1:
        what = f"no id column '{column}'" if not found else f"{found} id columns '{column}'"
        there = ", ".join(map(repr, source.columns))
        raise UsageError(
            str(
                Problem(
                    what,
                    source.name,
                    expected=f"one for --format cs224n; there are: {there}",
                    do=f"name it by --set tasks.{name}.id=COLUMN",
                )
            )
        )


def _id_column(task: Task) -> str:
    return task.id or "id"


def _with_cells(task: Task, chunk: Chunk) -> Iterator[tuple[InputRow, Sequence[Cell] | None]]:
    cells = prediction_cells(task, chunk.predictions, chunk.truncated)
    for row, problem in zip(chunk.rows, chunk.problems, strict=True):
        yield row, next(cells) if problem is None else None


def _joined(found: Sequence[TaskPredictions]) -> TaskPredictions:
    if found[0].probabilities is None:
        return TaskPredictions(None, np.concatenate([each.values for each in found]).astype(np.float32))
    return TaskPredictions(np.concatenate([cast("NDArray[np.float32]", each.probabilities) for each in found]), None)


def _text(cell: Cell) -> str:
    return "" if cell is None else cell_text(cell)


def _plain(cell: Cell) -> Any:
    """A cell as JSON has it; JSON knows no infinities."""
    if isinstance(cell, Nested):
        return json.loads(cell, parse_constant=lambda _: None)
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _distinct(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """The names, later ones of several equal ones numbered: an object holds each once, beside ``others``."""
    taken = {*names, *others}
    seen: set[str] = set()
    found: list[str] = []
    for name in names:
        found.append(_free((f"{name}_{number}" for number in count(2)), taken) if name in seen else name)
        seen.add(name)
    return found


def _free(names: Iterable[str], taken: set[str]) -> str:
    """The first of ``names`` that is not taken; now it is."""
    name = next(each for each in names if each not in taken)
    taken.add(name)
    return name
