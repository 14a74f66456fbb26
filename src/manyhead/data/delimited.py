"""Comma- and tab-separated text: what separates cells and what quotes mean, found out by evidence in the file.

Two kinds of files look alike. With CSV quoting, a cell that holds a quote, a separator or a line break stands in quotes
and its own quotes are doubled; without, quotes are plain characters. Reading one as the other loses rows without a
sound, so the choice is made by counting what only one of them explains, and a record that turns out to contradict it
later is never allowed to swallow its neighbours: only its first line is set aside, and reading goes on at the next.
Between commas and semicolons a properly quoted record is always what it says, line breaks and all; between tabs, where
files without quoting are common, lines that are whole records by themselves stay such unless doubled quotes speak for
quoting.
"""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple

from manyhead.data.table import Row, Table, without_surrogates
from manyhead.data.text import TextSource
from manyhead.errors import DataError, Problem

Quotes = Literal["csv", "none"]

_NAMES = {"\t": "tab-separated", ",": "comma-separated", ";": "semicolon-separated"}
_DELIMITERS = tuple(_NAMES)
_SAMPLE_CHARS = 4_000_000
_DELIMITER_SAMPLE_LINES = 1000
_LINE_ENDS = ("\n", "\r\n", "\r", "")
_LONE_CR = re.compile("\r(?!\n)")
_RECORD_CHARS = 16_000_000
FIELD_CHARS = 2**31 - 1
"""Longest cell that csv is let read: its own limit is shorter than texts may be."""
_QUOTES: tuple[Quotes, ...] = ("csv", "none")
_PROPER_CELL = '(?:"[^"]*+(?:""[^"]*+)*+"|[^"D]*+)'
_PROPER_RECORD = f"{_PROPER_CELL}(?:D{_PROPER_CELL})*+"


@dataclass(frozen=True)
class Layout:
    """How a delimited file is laid out.

    With ``trusted`` quoting the user said so: quotes out of order are errors and never plain characters.
    """

    delimiter: str
    quotes: Quotes
    trusted: bool = False

    @property
    def note(self) -> str:
        """In words."""
        return f"{_NAMES[self.delimiter]}, {'CSV quoting' if self.quotes == 'csv' else 'unquoted'}"


class DelimitedTable(Table):
    """A comma-, tab- or semicolon-separated file.

    ``layout`` is how it is laid out, ``header_line`` the line of its header, 0 where it has none.
    """

    def __init__(self, source: TextSource, layout: Layout, header: Sequence[str] | None) -> None:
        self._source = source
        self.layout = layout
        self.header_line, columns = 0, list(header or ())
        if header is None:
            self.header_line, columns = _read_header(source.lines(_cleaned), layout, source.path)
        super().__init__(source.path, columns, f"{layout.note}{source.note}")

    def _rows(self, names: Sequence[str]) -> Iterator[Row]:
        pick = self._picker(names)
        records = Records(self._source.lines(self.clean), self.layout, len(self.columns))
        for line, cells in records.read():
            if line <= self.header_line:
                continue
            if isinstance(cells, str):
                self.rejects.add(line, cells)
            else:
                yield line, pick(cells)
        self.stray_quotes = records.stray_quotes

    def _picker(self, names: Sequence[str]) -> Callable[[list[str]], tuple[str, ...]]:
        if tuple(names) == self.columns:
            return tuple
        first, *others = [self.columns.index(name) for name in names]
        return itemgetter(first, *others) if others else lambda cells: (cells[first],)


def open_delimited(
    source: TextSource, *, delimiter: str | None, quotes: Quotes | None, header: Sequence[str] | None
) -> DelimitedTable:
    """Opens a delimited file; what is None is found out by evidence in its first megabytes.

    ``header`` names the columns of a file that does not. Raises `DataError` for a file without a first line.
    """
    sample = _sample(source.lines())
    if all(line in _LINE_ENDS for line in sample.lines):
        raise DataError([Problem("the file holds no rows", source.path, expected="a header line and rows")])
    width = None if header is None else len(header)
    if delimiter is None:
        delimiter = _find_delimiter(sample, width)
    trusted = quotes is not None
    if quotes is None:
        quotes = _find_quotes(sample, delimiter, width)
    return DelimitedTable(source, Layout(delimiter, quotes, trusted), header)


class Records:
    """Records out of physical lines. ``width`` is the number of cells wanted; None takes the first record's.

    Lines that are empty are no records, except where a record is one cell. ``ran_out`` says whether the lines ended
    before the latest record's quotes did.
    """

    def __init__(self, lines: Iterable[str], layout: Layout, width: int | None) -> None:
        self._lines = _Lines(lines)
        self._layout = layout
        self._width = width
        self._quoted = csv.reader(self._lines, delimiter=layout.delimiter, strict=True)
        csv.field_size_limit(FIELD_CHARS)
        self._proper = _proper(layout.delimiter)
        self.stray_quotes = 0
        self.ran_out = False

    @property
    def text(self) -> str:
        """The physical text of the latest record."""
        return "".join(self._lines.taken)

    def read(self) -> Iterator[tuple[int, list[str] | str]]:
        """The line a record starts at, and its cells, or why it has none."""
        lines, delimiter = self._lines, self._layout.delimiter
        mind_quotes = self._layout.quotes == "csv"
        for line in lines:
            number = lines.number
            self.ran_out = False
            if mind_quotes and '"' in line:
                cells = self._parse_quoted()
            elif len(line) <= 2 and line in _LINE_ENDS and self._width != 1:
                lines.forget()
                continue
            else:
                cells = self._fit(_bare(line).split(delimiter))
            yield number, cells
            lines.forget()

    def _fit(self, cells: list[str]) -> list[str] | str:
        """``cells``, or what is wrong with their number. The first record sets it where none was wanted."""
        if self._width is None:
            self._width = len(cells)
        if len(cells) == self._width:
            return cells
        return f"{len(cells)} cell{'' if len(cells) == 1 else 's'} instead of {self._width}"

    def _parse_quoted(self) -> list[str] | str:
        """Parses the record that the line just taken begins. Where it cannot be one, only this line is used up."""
        lines, trusted = self._lines, self._layout.trusted
        lines.give_back(0)
        try:
            cells = self._fit(next(self._quoted))
            if trusted or (not isinstance(cells, str) and self._is_one(cells)):
                return cells
            closed = True
        except csv.Error as error:
            cells, closed = f"quotes out of order: {error}", False
            self.ran_out = lines.ended
        except _RecordTooLongError:
            cells, closed = f"a quote is not closed within {_RECORD_CHARS} characters", False
        literal = _bare(lines.taken[0]).split(self._layout.delimiter)
        alone = closed and len(lines.taken) == 1
        lines.give_back(1)
        if trusted or alone or len(literal) != self._width:
            return cells
        self.stray_quotes += 1
        return literal

    def _is_one(self, cells: list[str]) -> bool:
        """Whether a record of several lines is one: two stray quotes can make one of lines that are whole records."""
        taken, delimiters = self._lines.taken, (self._width or 1) - 1
        if len(taken) == 1 or not delimiters:
            return True
        if any(line.count(self._layout.delimiter) != delimiters for line in taken):
            return True
        if self._layout.delimiter == "\t":
            return any('"' in cell and "\n" in cell for cell in cells)
        return self._proper.fullmatch(_bare(self.text)) is not None


class _RecordTooLongError(Exception):
    """A quoted record grew beyond what is kept in memory."""


class _Lines:
    """Physical lines with their numbers; those of the record being read can be given back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._source = iter(lines)
        self._back: deque[str] = deque()
        self._chars = 0
        self.taken: list[str] = []
        self.number = 0
        self.ended = False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._source, None)
        if line is None:
            self.ended = True
            raise StopIteration
        self.number += 1
        self.taken.append(line)
        self._chars += len(line)
        if self._chars > _RECORD_CHARS and len(self.taken) > 1:
            raise _RecordTooLongError
        return line

    def give_back(self, keep: int) -> None:
        """Gives back the taken lines behind the first ``keep``."""
        back = self.taken[keep:]
        self._back.extendleft(reversed(back))
        self.number -= len(back)
        self.ended = False
        del self.taken[keep:]
        self._chars = sum(map(len, self.taken))

    def forget(self) -> None:
        """Begins a new record."""
        self.taken.clear()
        self._chars = 0


def _bare(line: str) -> str:
    """The line without its end: one LF, CRLF or CR."""
    return line.removesuffix("\n").removesuffix("\r")


def check_header(cells: Sequence[str], path: Path | str, line: int) -> None:
    """Raises `DataError` where lines that end in CR alone were taken for a part of the header."""
    if any(_LONE_CR.search(cell) for cell in cells):
        problem = "the header holds a carriage return, and other lines end in line feeds"
        raise DataError([Problem(problem, path, line, do="end all lines alike")])


def _read_header(lines: Iterable[str], layout: Layout, path: Path) -> tuple[int, list[str]]:
    for line, cells in Records(lines, layout, None).read():
        if isinstance(cells, str):
            raise DataError([Problem(f"cannot read the header: {cells}", path, line, do="set quoting: none")])
        check_header(cells, path, line)
        return line, cells
    raise DataError([Problem("the file holds no rows", path, expected="a header line and rows")])


def _cleaned(line: str) -> str:
    return without_surrogates(line)[0]


def _proper(delimiter: str) -> re.Pattern[str]:
    """What a record matches whose quotes stand around whole cells, doubled within."""
    return re.compile(_PROPER_RECORD.replace("D", re.escape(delimiter)))


class _Sample(NamedTuple):
    """The first lines of a file; when it goes on behind them, it is ``cut``."""

    lines: list[str]
    cut: bool

    def records(self, records: Records) -> Iterator[list[str] | str]:
        """Those of ``records``, read from these lines, but for one that the cut leaves open: it proves nothing."""
        for _, cells in records.read():
            if self.cut and records.ran_out:
                return
            yield cells


def _sample(lines: Iterable[str]) -> _Sample:
    taken, chars = [], 0
    for line in lines:
        taken.append(line)
        chars += len(line)
        if chars > _SAMPLE_CHARS:
            return _Sample(taken, cut=True)
    return _Sample(taken, cut=False)


def _find_delimiter(sample: _Sample, width: int | None) -> str:
    """The separator that gives most records the same number of cells; one that never separates comes last."""
    first = _Sample(sample.lines[:_DELIMITER_SAMPLE_LINES], sample.cut or len(sample.lines) > _DELIMITER_SAMPLE_LINES)
    return max(_DELIMITERS, key=lambda delimiter: max(_fitting(first, Layout(delimiter, q), width) for q in _QUOTES))


def _fitting(sample: _Sample, layout: Layout, width: int | None) -> tuple[bool, float]:
    """Whether most records have the cells wanted (any number above one where none is), and the share that has."""
    found = list(sample.records(Records(sample.lines, layout, width)))
    whole = [cells for cells in found if not isinstance(cells, str)]
    share = len(whole) / max(1, len(found))
    separates = bool(whole) and (width is not None or len(whole[0]) > 1)
    return separates and share > 0.5, share


def _find_quotes(sample: _Sample, delimiter: str, width: int | None) -> Quotes:
    """CSV unless more records contradict it than need it.

    A record needs CSV quoting when a properly quoted cell holds a quote, a separator or a line break; between commas
    and semicolons any quoted cell counts, and between tabs too where most records have one. A record contradicts it
    when quotes stand inside an unquoted cell, or when only plain quotes make it whole.
    """
    proper = _proper(delimiter)
    telling = re.compile(f'["\r\n{re.escape(delimiter)}]' if delimiter == "\t" else "")
    records = Records(sample.lines, Layout(delimiter, "csv"), width)
    total = quoted = needing = contradicting = strays = 0
    for cells in sample.records(records):
        total += 1
        if '"' not in records.text:
            continue
        improper = isinstance(cells, str) or proper.fullmatch(_bare(records.text)) is None
        if improper or records.stray_quotes > strays:
            contradicting += 1
        else:
            quoted += 1
            needing += any(map(telling.search, cells))
        strays = records.stray_quotes
    return "none" if contradicting > (quoted if 2 * quoted > total else needing) else "csv"
