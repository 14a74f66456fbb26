"""Rows to predict for: every row of a file or of stdin, in order, broken ones too."""

import codecs
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from manyhead.data.delimited import DelimitedTable, Layout, Records
from manyhead.data.jsonl import JsonlTable
from manyhead.data.read import read_table
from manyhead.data.table import Cell, Nested, Table, meant, without_surrogates
from manyhead.data.text import TextSource
from manyhead.errors import DataError, Problem, UsageError
from manyhead.recipe.schema import Task

Line = tuple[int, str]
"""A line's number, from 1, and its text."""

_LOOK_AHEAD_ROWS = 1000
_DELIMITERS = ",\t;"


@dataclass(frozen=True)
class InputRow:
    """A row: its line, from 1, a cell for each column, and what is wrong with it as such, if anything."""

    line: int
    cells: tuple[Cell, ...]
    problem: str | None = None


@dataclass
class Input:
    """Columns, and rows that can be read once.

    So far ``replaced`` counts broken characters, now U+FFFD, and ``late`` holds keys of JSON objects, with their first
    line, that came too late to be columns.
    """

    name: str
    columns: tuple[str, ...]
    rows: Iterable[InputRow] = ()
    replaced: int = 0
    late: dict[str, int] = field(default_factory=dict[str, int])

    def clean(self, text: str) -> str:
        """``text`` without what no encoder takes."""
        cleaned, replaced = without_surrogates(text)
        self.replaced += replaced
        return cleaned

    def places(self, names: Sequence[str]) -> list[int]:
        """Where the columns ``names`` are. Raises `UsageError` for those that are missing or there twice."""
        problems: list[str] = []
        for name in names:
            found = self.columns.count(name)
            if found != 1:
                what = f"no column '{name}'" if not found else f"{found} columns '{name}'"
                there = ", ".join(repr(column) for column in self.columns)
                expected = f"one of each text column; there are: {there}"
                problems.append(
                    str(Problem(what, self.name, expected=expected, do=None if found else meant(name, self.columns)))
                )
        if problems:
            raise UsageError("\n".join(problems))
        return [self.columns.index(name) for name in names]


def open_file(path: Path, task: Task) -> Input:
    """The rows of a file of any format that can be read.

    Names of columns come from the file; where those lack the task's texts, from the recipe's ``columns``.
    """
    table = read_table(path, quoting=task.quoting, charset=task.charset)
    own_header = task.columns is None or set(task.text) <= set(table.columns)
    if not own_header and isinstance(table, DelimitedTable):
        table = read_table(path, format=task.format, quoting=task.quoting, charset=task.charset, columns=task.columns)
    found = Input(str(path), table.columns)
    if isinstance(table, DelimitedTable):
        lines = TextSource(path, task.charset).lines(found.clean)
        records = Records(lines, table.layout, len(table.columns))
        found.rows = islice(_records(records, table.layout.delimiter, len(table.columns)), int(own_header), None)
    elif isinstance(table, JsonlTable):
        found.rows = _objects(found, enumerate(TextSource(path, task.charset).lines(), 1))
    else:
        found.rows = _plain(table)
    return found


def open_stream(stream: BinaryIO, charset: str) -> Input:
    """The rows of a stream, read as they come: JSON lines, or delimited text whose first line names the columns."""
    try:
        codecs.lookup(charset)
    except LookupError:
        raise UsageError(f"there is no charset '{charset}'; expected a name such as utf-8, latin-1 or cp1252") from None
    charset = "utf-8-sig" if charset == "utf-8" else charset
    lines = enumerate(io.TextIOWrapper(stream, charset, "surrogateescape", newline="\n"), 1)
    first = next((each for each in lines if each[1].strip()), None)
    if first is None:
        raise UsageError("stdin is empty; expected CSV with a header line, or JSON lines")
    whole = chain([first], lines)
    return _open_objects(whole) if first[1].lstrip().startswith("{") else _open_records(whole, first)


def _open_records(lines: Iterator[Line], first: Line) -> Input:
    blank, header = first[0] - 1, first[1]
    delimiter = max(_DELIMITERS, key=header.count)
    found = Input("stdin", ())
    records = Records((found.clean(text) for _, text in lines), Layout(delimiter, "csv"), None)
    rows = _records(records, delimiter, 0)
    names = next(rows)
    if names.problem is not None:
        raise DataError([Problem(f"cannot read the header: {names.problem}", "stdin", first[0])])
    found.columns = tuple(str(cell) for cell in names.cells)
    found.rows = (replace(row, line=row.line + blank) for row in rows)
    return found


def _open_objects(lines: Iterator[Line]) -> Input:
    ahead = list(islice(lines, _LOOK_AHEAD_ROWS))
    objects = [found for _, text in ahead if isinstance(found := _object(text), dict)]
    found = Input("stdin", tuple(dict.fromkeys(key for each in objects for key in each)))
    found.rows = _objects(found, chain(ahead, lines))
    return found


def _records(records: Records, delimiter: str, width: int) -> Iterator[InputRow]:
    """Of a broken row the cells that a plain split gives are kept, so that its id is not lost.

    ``width`` is the number of cells wanted; 0 takes the first record's.
    """
    for line, cells in records.read():
        if not isinstance(cells, str):
            width = width or len(cells)
            yield InputRow(line, tuple(cells))
        else:
            parts = records.text.rstrip("\r\n").split(delimiter)
            yield InputRow(line, (*parts[:width], *[""] * (width - len(parts))), cells)


def _objects(source: Input, lines: Iterable[Line]) -> Iterator[InputRow]:
    columns = dict.fromkeys(source.columns)
    for line, text in lines:
        if not text.strip():
            continue
        found = _object(text)
        if isinstance(found, str):
            yield InputRow(line, (None,) * len(columns), found)
            continue
        for key in found.keys() - columns.keys():
            source.late.setdefault(key, line)
        yield InputRow(line, tuple([_cell(found.get(name), source.clean) for name in columns]))


def _object(text: str) -> dict[str, Any] | str:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return "not valid JSON"
    return cast("dict[str, Any]", found) if isinstance(found, dict) else "not a JSON object"


def _cell(value: object, clean: Callable[[str], str]) -> Cell:
    if isinstance(value, str):
        return clean(value)
    if value is None or isinstance(value, (int, float)):
        return value
    return Nested(clean(json.dumps(value, ensure_ascii=False)))


def _plain(table: Table) -> Iterator[InputRow]:
    for line, cells in table:
        yield InputRow(line, cells)
