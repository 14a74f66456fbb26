"""Formats of the output: each turns chunks into bytes, which are written one behind the other."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from manyhead.errors import Problem, UsageError
from manyhead.files import csv_writer
from manyhead.inference.bulk.columns import Columns, text
from manyhead.inference.bulk.scorer import Chunk
from manyhead.inference.outputs import TaskPredictions
from manyhead.inference.writing import write_cs224n
from manyhead.recipe.schema import Task

FormatName = Literal["csv", "tsv", "jsonl", "parquet", "cs224n"]

ENDINGS: dict[str, FormatName] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
"""Formats by the ending of a file's name; `GZIP` may stand behind those of text."""

GZIP = ".gz"


class Writer(Protocol):
    """Gives the bytes of an output piece by piece."""

    def head(self) -> bytes:
        """What comes before all rows."""
        ...

    def rows(self, chunk: Chunk) -> bytes:
        """A chunk's rows."""
        ...

    def end(self) -> bytes:
        """What had to wait for the last chunk."""
        ...


class DelimitedWriter:
    """A table with a header; gaps are empty cells."""

    def __init__(self, columns: Columns, delimiter: str = ",") -> None:
        self._columns = columns
        self._delimiter = delimiter

    def head(self) -> bytes:
        """The header."""
        return self._bytes([[*self._columns.kept, *self._columns.predicted]])

    def rows(self, chunk: Chunk) -> bytes:
        """The rows."""
        return self._bytes([[*map(text, row.cells), *map(text, cells)] for row, cells in self._columns.rows(chunk)])

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def _bytes(self, rows: Sequence[Sequence[str]]) -> bytes:
        file = io.StringIO(newline="")
        csv_writer(file, self._delimiter).writerows(rows)
        return file.getvalue().encode()


class JsonlWriter:
    """An object a line; gaps are null."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def head(self) -> bytes:
        """Nothing."""
        return b""

    def rows(self, chunk: Chunk) -> bytes:
        """The rows."""
        return "".join(json_line(found) for found in self._columns.objects(chunk)).encode()

    def end(self) -> bytes:
        """Nothing."""
        return b""


class Cs224nWriter:
    """The course's format for one task: id and prediction of each row, at the end. Every row needs a text.

    Raises `UsageError` where the input has no id column, or several.
    """

    def __init__(self, columns: Columns, name: str, task: Task) -> None:
        column = task.id or "id"
        source = columns.source
        if (found := source.columns.count(column)) != 1:
            what = f"no id column '{column}'" if not found else f"{found} id columns '{column}'"
            expected = f"one for --format cs224n; there are: {', '.join(map(repr, source.columns))}"
            do = f"name it by --set tasks.{name}.id=COLUMN"
            raise UsageError(str(Problem(what, source.name, expected=expected, do=do)))
        self._task = task
        self._name = name
        self._id = source.columns.index(column)
        self._ids: list[str] = []
        self._found: list[TaskPredictions] = []

    def head(self) -> bytes:
        """Nothing yet."""
        return b""

    def rows(self, chunk: Chunk) -> bytes:
        """Nothing yet. Raises `UsageError` for a row that has no prediction: a submission has no gaps."""
        for row, problems in zip(chunk.rows, chunk.problems(), strict=True):
            if problems:
                problem = problems[self._name]
                raise UsageError(
                    f"line {row.line}: {problem}; expected a text in every row for --format cs224n; mend it"
                )
            self._ids.append(text(row.cells[self._id]))
        self._found.append(chunk.answers[self._name].predictions)
        return b""

    def end(self) -> bytes:
        """All rows."""
        if not self._found:
            raise UsageError("the input has no rows; expected some for --format cs224n")
        file = io.StringIO(newline="")
        write_cs224n(file, self._task, self._ids, _joined(self._found))
        return file.getvalue().encode()


def writer_of(form: FormatName, columns: Columns, tasks: Mapping[str, Task]) -> Writer:
    """The writer of a format. Raises `UsageError` where it cannot hold what these tasks predict for this input."""
    if form == "cs224n":
        if len(tasks) != 1:
            raise UsageError(f"--format cs224n is for one task, not for {', '.join(tasks)}; name one by --task")
        [(name, task)] = tasks.items()
        return Cs224nWriter(columns, name, task)
    return _WRITERS[form](columns)


def _parquet(columns: Columns) -> Writer:
    """Imports pyarrow, which takes half a second, only for those who need it."""
    from manyhead.inference.bulk.parquet import SpoolWriter

    return SpoolWriter(columns)


_WRITERS: dict[str, Callable[[Columns], Writer]] = {
    "csv": DelimitedWriter,
    "tsv": lambda columns: DelimitedWriter(columns, "\t"),
    "jsonl": JsonlWriter,
    "parquet": _parquet,
}


def format_of(path: Path) -> FormatName | None:
    """The format that a file's name ends in."""
    name = path.name.lower().removesuffix(GZIP)
    found = ENDINGS.get(Path(name).suffix)
    return None if found == "parquet" and is_gzip(path) else found


def is_gzip(path: Path) -> bool:
    """Whether a file's name says that it is packed."""
    return path.name.lower().endswith(GZIP)


def json_line(value: object) -> str:
    """``value`` as a line of JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def _joined(found: Sequence[TaskPredictions]) -> TaskPredictions:
    if found[0].probabilities is None:
        return TaskPredictions(None, np.concatenate([each.values for each in found]).astype(np.float32))
    return TaskPredictions(
        np.concatenate([cast("NDArray[np.float32]", each.probabilities) for each in found]),
        None,
        np.concatenate([each.values for each in found]).astype(np.int64),
    )
