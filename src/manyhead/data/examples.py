"""Examples of a task out of its files: every row is either used or rejected with its line and the reason."""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from manyhead.data.read import read_table
from manyhead.data.table import Cell, Nested, Rejects, Table
from manyhead.data.task_data import Tally
from manyhead.errors import DataError, Problem
from manyhead.recipe.schema import DevFromTrain, Split, Task

HUB = "hub:"
"""What references to the hub start with."""

LARGEST_SCORE = float(np.finfo(np.float32).max)
"""Largest size of a target: scores are kept in 32 bits."""

Resolve = Callable[[str], Path]
"""From a file reference of a recipe to a local path."""

_UNLABELLED = -1.0
_CUT_ROWS = 4096
_SHOWN_REASONS = 5
_SHOWN_LINES = 5


class Example(NamedTuple):
    """A row that can be used. ``target`` is a class index, a score, or None in a split without targets."""

    line: int
    id: str
    texts: tuple[str, ...]
    target: int | float | None


def resolver(data_dir: Path, fetch: Resolve | None = None) -> Resolve:
    """Resolves references: paths below ``data_dir``, and those of the hub through ``fetch``."""

    def resolve(reference: str) -> Path:
        if not reference.startswith(HUB):
            return data_dir / reference
        if fetch is None:
            raise DataError([Problem(f"{reference} is on the hub, and only local files are read here")])
        return fetch(reference)

    return resolve


def reference_of(task: Task, split: Split) -> str | None:
    """The file reference that a split is read from: for a dev split cut from train, the training file."""
    if split == "dev" and isinstance(task.files.dev, DevFromTrain):
        return task.files.train
    reference = getattr(task.files, split)
    assert reference is None or isinstance(reference, str)
    return reference


def read_examples(name: str, task: Task, split: Split, path: Path, *, seed: int) -> "Examples":
    """Opens the examples of ``split`` of task ``name`` in the file ``path``. ``seed`` decides a cut of dev from train.

    Raises `DataError` with all that keeps the file from being read: see `read_table`, and missing columns.
    """
    try:
        table = read_table(path, format=task.format, quoting=task.quoting, charset=task.charset, columns=task.columns)
        return Examples(name, task, split, table, seed)
    except DataError as error:
        raise with_key(error, _file_key(name, task, split)) from None


def with_key(error: DataError, key: str) -> DataError:
    """The error with the recipe's key ``key`` where it has none yet."""
    return DataError([replace(problem, key=problem.key or key) for problem in error.problems])


def _file_key(name: str, task: Task, split: Split) -> str:
    """The key that names the file a split is read from: for a dev split cut from train, that of the training file."""
    is_cut = isinstance(getattr(task.files, split), DevFromTrain)
    return f"tasks.{name}.files.{'train' if is_cut else split}"


class Examples:
    """The examples of one split of one task. Each iteration reads the file anew, in bounded memory.

    ``key`` is the recipe's key of the split. ``has_targets`` is False only for test splits. Iterating raises
    `DataError` where a dev split cut from train gets none of its rows.
    """

    def __init__(self, name: str, task: Task, split: Split, table: Table, seed: int) -> None:
        self.name = name
        self.task = task
        self.split: Split = split
        self.table = table
        dev = task.files.dev
        self.seed = seed = dev.seed if isinstance(dev, DevFromTrain) and dev.seed is not None else seed
        self.key = f"tasks.{name}.files.{split}"
        self._id = task.id or ("id" if table.columns.count("id") == 1 else None)
        problems = self._column_problems()
        if problems:
            raise DataError(problems)
        self._target_of = _class_of(task) if task.kind == "classification" else _score_of(task)
        self._is_wanted = _cut(task, split, seed, name)
        self.has_targets = self._find_targets()
        self._rejects = Rejects()
        self._used = 0
        self._empty_texts = 0

    @property
    def is_cut(self) -> bool:
        """Whether the file holds two splits, train and dev."""
        return self._is_wanted is not None

    def tally(self) -> Tally:
        """What became of the rows in the latest iteration. Broken rows of a cut file count in its training split."""
        is_rest = self.is_cut and self.split == "dev"
        rejects = self._rejects if is_rest else self._rejects.joined(self.table.rejects)
        return Tally(self._used, rejects, self._empty_texts, self.table.replaced, self.table.stray_quotes)

    def __iter__(self) -> Iterator[Example]:
        self._rejects, self._used, self._empty_texts = Rejects(), 0, 0
        limit = self.task.limit.get(self.split)
        rows = self.table.select(self._columns())
        broken = self.table.rejects.counts
        is_wanted = self._is_wanted
        index = -1
        for index, (line, cells) in enumerate(rows):
            row = index + broken.total() if broken else index
            if is_wanted is not None and not is_wanted(row):
                continue
            if self._used == limit:
                return
            try:
                example = self._example(row, line, cells)
            except _UnusableError as error:
                self._rejects.add(line, str(error))
                continue
            self._used += 1
            yield example
        self._check_share(index + 1)

    def _check_share(self, rows: int) -> None:
        """Raises `DataError` where the dev share of so many ``rows`` is none."""
        dev = self.task.files.dev
        if self.split != "dev" or not isinstance(dev, DevFromTrain) or not rows or self._used or self._rejects.total:
            return
        problem = f"the fraction {dev.fraction:g} of {counted(rows, 'row')} is none"
        raise DataError([Problem(problem, self.table.path, key=self.key, do="raise fraction, or give a dev file")])

    def _example(self, row: int, line: int, cells: tuple[Cell, ...]) -> Example:
        n_texts = len(self.task.text)
        texts = tuple([cell if type(cell) is str else _as_text(cell) for cell in cells[:n_texts]])
        empty = [not text or text.isspace() for text in texts]
        if all(empty):
            raise _UnusableError("empty text" if n_texts == 1 else "both texts are empty")
        target = self._target_of(cells[n_texts]) if self.has_targets else None
        self._empty_texts += any(empty)
        own = "" if self._id is None or cells[-1] is None else str(cells[-1])
        return Example(line, own or str(row), texts, target)

    def _columns(self) -> list[str]:
        """Texts, target, id, as far as they are there."""
        target = [self.task.target] if self.has_targets else []
        return [*self.task.text, *target, *([] if self._id is None else [self._id])]

    def _column_problems(self) -> list[Problem]:
        key = f"tasks.{self.name}"
        needed = [(name, f"{key}.text") for name in self.task.text]
        if self.split != "test" or self.task.target in self.table.columns:
            needed.append((self.task.target, f"{key}.target"))
        if self.task.id is not None:
            needed.append((self.task.id, f"{key}.id"))
        return [problem for name, key in needed if (problem := self.table.column_problem(name, key)) is not None]

    def _find_targets(self) -> bool:
        """Whether rows have targets: always, but for a test split without the column, or whose first row has none."""
        if self.split != "test":
            return True
        if self.task.target not in self.table.columns:
            return False
        for _, (cell,) in self.table.select([self.task.target]):
            return not _is_gap(cell) and not (_number(cell) == _UNLABELLED and self._is_unknown(cell))
        return True

    def _is_unknown(self, cell: Cell) -> bool:
        try:
            self._target_of(cell)
        except _UnusableError:
            return True
        return False


def findings(tally: Tally, key: str, path: Path, max_rejected: float) -> tuple[list[Problem], list[Problem]]:
    """What is wrong with the rows of a split that was read to its end: errors, and warnings."""
    errors: list[Problem] = []
    warnings: list[Problem] = []
    rejects = tally.rejects
    if rejects.total:
        first = rejects.first[0].line
        problem = f"{rejects.total} of {counted(tally.rows, 'row')} rejected: {_listed(rejects)}"
        if rejects.total > max_rejected * tally.rows:
            expected = f"at most {max_rejected:.2%} (max_rejected)"
            errors.append(Problem(problem, path, first, key, expected, "mend the rows, or raise max_rejected"))
        else:
            warnings.append(Problem(problem, path, first, key))
    if not tally.used:
        (warnings if key.endswith(".test") else errors).append(Problem("no usable rows", path, key=key))
    noted = (
        (tally.empty_texts, "pair", "with one empty text, used as they are"),
        (tally.replaced, "lone surrogate", "replaced by U+FFFD"),
        (tally.stray_quotes, "row", "with quotes out of order, read as plain characters"),
    )
    warnings += [Problem(f"{counted(count, what)} {why}", path, key=key) for count, what, why in noted if count]
    return errors, warnings


def counted(count: int, what: str) -> str:
    """'1 row', '2 rows'."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def _listed(rejects: Rejects) -> str:
    """The most frequent reasons, with counts and first lines."""
    parts: list[str] = []
    for reason, count in rejects.counts.most_common(_SHOWN_REASONS):
        lines = [str(reject.line) for reject in rejects.first if reject.reason == reason][:_SHOWN_LINES]
        more = ", ..." if count > len(lines) else ""
        where = f", line{'s' if count > 1 else ''} {', '.join(lines)}{more}" if lines else ""
        parts.append(f"{reason} ({counted(count, 'row')}{where})")
    others = len(rejects.counts) - _SHOWN_REASONS
    return ", ".join(parts) + (f" and {others} more reasons" if others > 0 else "")


class _UnusableError(Exception):
    """A row without a usable text or target; the message is the reason."""


def _as_text(cell: Cell) -> str:
    if cell is None:
        raise _UnusableError("no text")
    if isinstance(cell, Nested):
        raise _UnusableError("the text is a list or an object")
    return str(cell)


def _is_gap(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _number(cell: Cell) -> float | None:
    """The finite number that a cell holds, or None."""
    if cell is None or isinstance(cell, Nested) or (isinstance(cell, str) and "_" in cell):
        return None
    try:
        number = float(cell)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _class_of(task: Task) -> Callable[[Cell], int]:
    """Class of a cell: labels match as text, else as equal numbers."""
    by_text: dict[str, int] = {}
    by_number: dict[float, int] = {}
    for index, label in enumerate(task.label_cells):
        for text in _spellings(label):
            by_text.setdefault(text, index)
        number = _number(label)
        if number is not None:
            by_number.setdefault(number, index)
    shown = ", ".join(str(label) for label in task.label_cells)

    def find(cell: Cell) -> int:
        found = by_text.get(cell) if type(cell) is str else None
        if found is not None:
            return found
        if _is_gap(cell):
            raise _UnusableError("no target")
        if isinstance(cell, Nested):
            raise _UnusableError("the target is a list or an object")
        for text in _spellings(cell):
            if text in by_text:
                return by_text[text]
        number = _number(cell)
        if number is not None and number in by_number:
            return by_number[number]
        raise _UnusableError(f"unknown label '{_shortened(cell)}' (labels: {_shortened(shown)})")

    return find


def _score_of(task: Task) -> Callable[[Cell], float]:
    low, high = task.range or (-math.inf, math.inf)

    def find(cell: Cell) -> float:
        if _is_gap(cell):
            raise _UnusableError("no target")
        number = None if isinstance(cell, bool) else _number(cell)
        if number is None:
            raise _UnusableError(f"the target '{_shortened(cell)}' is no finite number")
        if abs(number) > LARGEST_SCORE:
            raise _UnusableError(f"the target {number:g} is too large for 32 bits")
        if not low <= number <= high:
            raise _UnusableError(f"the target {number:g} is outside of the range {low:g} to {high:g}")
        return number

    return find


def _spellings(label: Cell) -> tuple[str, ...]:
    """How a label may stand in a cell: truth values also in lower and upper case."""
    text = str(label).strip()
    return (text, text.lower(), text.upper()) if isinstance(label, bool) else (text,)


def _shortened(cell: Cell, chars: int = 60) -> str:
    text = str(cell)
    return text if len(text) <= chars else text[: chars - 3] + "..."


def _cut(task: Task, split: Split, seed: int, name: str) -> Callable[[int], bool] | None:
    """Whether a row of the file, numbered from 0, belongs to ``split``; None where all do.

    A pure function of seed, task and row. Rows are taken in small blocks, each giving its share to dev, so that dev has
    its exact share of any stretch of the file.
    """
    dev = task.files.dev
    if not isinstance(dev, DevFromTrain) or split == "test":
        return None
    block_rows = math.ceil(1 / min(dev.fraction, 1 - dev.fraction))
    blocks = max(1, _CUT_ROWS // block_rows)
    current = -1
    chosen = np.empty(0, bool)

    def is_wanted(row: int) -> bool:
        nonlocal current, chosen
        chunk, place = divmod(row, blocks * block_rows)
        if chunk != current:
            key = hashlib.blake2b(f"{seed}/{name}/{chunk}".encode(), digest_size=16).digest()
            draws = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(blocks * block_rows)
            ranks = draws.reshape(blocks, block_rows).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
            starts = np.arange(chunk * blocks, (chunk + 1) * blocks + 1) * block_rows
            quotas = np.diff(np.floor(starts * dev.fraction + 1e-6))
            current, chosen = chunk, (ranks < quotas[:, None]).ravel()
        return bool(chosen[place]) == (split == "dev")

    return is_wanted
