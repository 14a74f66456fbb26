"""Rows to score: every row of a file or of stdin, in order, broken ones too."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, dropwhile, islice
from pathlib import Path
from typing import BinaryIO

from manyhead.data.delimited import DelimitedTable, Layout, Records, check_header
from manyhead.data.jsonl import JsonlTable, json_cell, parse_object
from manyhead.data.read import read_table
from manyhead.data.table import Cell, Table, meant, without_surrogates
from manyhead.data.text import TextSource
from manyhead.errors import DataError, Problem, UsageError
from manyhead.recipe.schema import Task

Line = tuple[int, str]
"""A line's number, from 1, and its text."""

_LOOK_AHEAD_ROWS = 1000
_DELIMITERS = ",\t;"
_RAREST = "\t"


@dataclass(frozen=True)
class InputRow:
    """A row: its line, from 1, a cell for each column, and what is wrong with it as such, if anything.

    ``text`` is a broken row as it stands in the file.
    """

    line: int
    cells: tuple[Cell, ...]
    problem: str | None = None
    text: str | None = None


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


def tasks_for(source: Input, tasks: Mapping[str, Task], named: Sequence[str]) -> dict[str, Task]:
    """The tasks ``named``, or, where none is, all whose text columns ``source`` has.

    Raises `UsageError` for columns that are missing or there twice, and where it has those of no task.
    """
    if named:
        source.places([column for name in named for column in tasks[name].text])
        return {name: tasks[name] for name in named}
    found = {name: task for name, task in tasks.items() if all(source.columns.count(each) == 1 for each in task.text)}
    if not found:
        wanted = "; ".join(f"{name}: {', '.join(map(repr, task.text))}" for name, task in tasks.items())
        there = ", ".join(map(repr, source.columns))
        expected = f"the text columns of a task ({wanted}); there are: {there}"
        do = "name the columns by --set tasks.TASK.text=[COLUMN]"
        raise UsageError(str(Problem("no task reads these columns", source.name, expected=expected, do=do)))
    return found


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
        rows = _records(records, table.layout.delimiter, len(table.columns))
        found.rows = dropwhile(lambda row: row.line <= table.header_line, rows)
    elif isinstance(table, JsonlTable):
        found.rows = _objects(found, enumerate(TextSource(path, task.charset).lines(), 1))
    else:
        found.rows = _plain(found, table)
    return found


def open_stream(stream: BinaryIO, charset: str) -> Input:
    """The rows of a stream, read as they come: JSON lines, or delimited text whose first line names the columns."""
    lines = enumerate(_lines(stream, charset), 1)
    first = next((each for each in lines if each[1].strip()), None)
    if first is None:
        raise UsageError("stdin is empty; expected CSV with a header line, or JSON lines")
    whole = chain([first], lines)
    return _open_objects(whole) if first[1].lstrip().startswith("{") else _open_records(whole, first)


def _lines(stream: BinaryIO, charset: str) -> Iterator[str]:
    """Lines with their ends, which are CRs where there is no LF at all."""
    charset = "utf-8-sig" if charset == "utf-8" else charset
    try:
        lines = iter(io.TextIOWrapper(stream, charset, "surrogateescape", newline="\n"))
        first = next(lines, "")
        if first and not first.endswith("\n"):
            yield from (f"{line}\r" for line in first.removesuffix("\r").split("\r"))
            return
        yield first
        yield from lines
    except (LookupError, ValueError) as error:
        expected = "a name such as utf-8, latin-1 or cp1252"
        raise UsageError(f"stdin cannot be read in charset '{charset}': {error}; expected {expected}") from None


def _open_records(lines: Iterator[Line], first: Line) -> Input:
    blank, header = first[0] - 1, first[1]
    delimiter = max(_DELIMITERS, key=header.count) if any(map(header.count, _DELIMITERS)) else _RAREST
    found = Input("stdin", ())
    records = Records((found.clean(text) for _, text in lines), Layout(delimiter, "csv"), None)
    rows = _records(records, delimiter, 0)
    names = next(rows)
    if names.problem is not None:
        raise DataError([Problem(f"cannot read the header: {names.problem}", "stdin", first[0])])
    found.columns = tuple(str(cell) for cell in names.cells)
    check_header(found.columns, found.name, first[0])
    found.rows = (replace(row, line=row.line + blank) for row in rows)
    return found


def _open_objects(lines: Iterator[Line]) -> Input:
    ahead = list(islice(lines, _LOOK_AHEAD_ROWS))
    objects = [found for _, text in ahead if isinstance(found := parse_object(text), dict)]
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
            text = records.text.rstrip("\r\n")
            parts = text.split(delimiter)
            yield InputRow(line, (*parts[:width], *[""] * (width - len(parts))), cells, text)


def _objects(source: Input, lines: Iterable[Line]) -> Iterator[InputRow]:
    columns = dict.fromkeys(source.columns)
    for line, text in lines:
        if not text.strip():
            continue
        found = parse_object(text)
        if isinstance(found, str):
            yield InputRow(line, (None,) * len(columns), found, source.clean(text.rstrip("\r\n")))
            continue
        for key in found.keys() - columns.keys():
            source.late.setdefault(key, line)
        yield InputRow(line, tuple([json_cell(found.get(name), source.clean) for name in columns]))


def _plain(source: Input, table: Table) -> Iterator[InputRow]:
    for line, cells in table:
        source.replaced = table.replaced
        yield InputRow(line, cells)
