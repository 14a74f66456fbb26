"""What every reader of files gives: a table of rows, read one after the other, and the rows it could not use."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from manyhead.errors import DataError, Problem

Cell = str | int | float | bool | None
"""One value of a row. Delimited files hold only text; typed formats keep numbers, truth values and gaps (None)."""

Row = tuple[int, tuple[Cell, ...]]
"""Line of the file (row, for formats without lines), from 1, and the row's cells."""

SHOWN_REJECTS = 20
"""Rejected rows that are kept with their lines; the rest are counted."""

_KEPT_REASONS = 1000
_SURROGATE = re.compile("[\ud800-\udfff]")


class Nested(str):
    """JSON text of a list or an object in a cell: carried along, usable neither as text nor as target."""

    __slots__ = ()


@dataclass(frozen=True)
class Reject:
    """A row that was not used: its line, from 1, and why."""

    line: int
    reason: str


@dataclass
class Rejects:
    """Rejected rows: all of them counted by reason, the first ones with their lines."""

    counts: Counter[str] = field(default_factory=Counter)
    first: list[Reject] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of rejected rows."""
        return self.counts.total()

    def add(self, line: int, reason: str) -> None:
        """Counts one more row."""
        known = reason in self.counts or len(self.counts) < _KEPT_REASONS
        self.counts[reason if known else "other reasons"] += 1
        if len(self.first) < SHOWN_REJECTS:
            self.first.append(Reject(line, reason))

    def joined(self, other: "Rejects") -> "Rejects":
        """Those of both, in the order of their lines."""
        first = sorted([*self.first, *other.first], key=lambda reject: reject.line)
        return Rejects(self.counts + other.counts, first[:SHOWN_REJECTS])


class Table(ABC):
    """A file of rows. Each iteration reads it anew, in bounded memory.

    ``columns`` are the names in order, ``note`` says in a few words what was detected. The counters speak of the
    latest iteration: ``rejects`` of rows that are broken as such (never shifting their neighbours), ``replaced`` of
    lone surrogates that became U+FFFD, ``stray_quotes`` of rows whose quotes were read as plain characters in a file
    with CSV quoting.
    """

    def __init__(self, path: Path, columns: Sequence[str], note: str) -> None:
        self.path = path
        self.columns = tuple(columns)
        self.note = note
        self.rejects = Rejects()
        self.replaced = 0
        self.stray_quotes = 0

    def __iter__(self) -> Iterator[Row]:
        return self.select(self.columns)

    def select(self, names: Sequence[str]) -> Iterator[Row]:
        """Rows with the cells of the columns ``names`` only, in that order.

        Raises `DataError` for a column that is missing or there twice, and for a file that cannot be read on.
        """
        if tuple(names) != self.columns:
            problems = [problem for name in names if (problem := self.column_problem(name)) is not None]
            if problems:
                raise DataError(problems)
        self.rejects, self.replaced, self.stray_quotes = Rejects(), 0, 0
        return self._rows(names)

    def column_problem(self, name: str, key: str | None = None) -> Problem | None:
        """What keeps column ``name`` from being read, or None. ``key`` is the recipe's key that names it."""
        found = self.columns.count(name)
        if found == 1:
            return None
        if found:
            return Problem(f"{self.path} has {found} columns '{name}'", key=key, do="give each column its own name")
        there = f"one of: {', '.join(repr(column) for column in self.columns)}"
        return Problem(f"{self.path} has no column '{name}'", key=key, expected=there, do=meant(name, self.columns))

    @abstractmethod
    def _rows(self, names: Sequence[str]) -> Iterator[Row]: ...

    def clean(self, text: str) -> str:
        """``text`` with lone surrogates, which no encoder takes, replaced by U+FFFD and counted."""
        cleaned, replaced = without_surrogates(text)
        self.replaced += replaced
        return cleaned


def without_surrogates(text: str) -> tuple[str, int]:
    """``text`` with each lone surrogate replaced by U+FFFD, and how many there were."""
    if text.isascii() or _SURROGATE.search(text) is None:
        return text, 0
    return _SURROGATE.subn("\ufffd", text)


def meant(name: str, choices: Sequence[str]) -> str | None:
    """'did you mean ...?' with the closest of ``choices``, or None."""
    close = get_close_matches(name, choices, n=1)
    return f"did you mean {close[0]!r}?" if close else None


def missing_file(path: Path, key: str | None = None) -> Problem:
    """The problem of a file that is not there, with the files that are."""
    folder = path.parent
    if not folder.is_dir():
        do = "give the folder of the data with data_dir or --data-dir"
        return Problem(f"no file {path}: there is no folder {folder}", key=key, do=do)
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    there = ", ".join(names[:SHOWN_REJECTS]) + (", ..." if len(names) > SHOWN_REJECTS else "")
    problem = f"no file {path}; in {folder} are: {there}" if names else f"no file {path}; {folder} holds no files"
    return Problem(problem, key=key, do=meant(path.name, names))
