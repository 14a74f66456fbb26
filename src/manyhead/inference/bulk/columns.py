"""The columns of the output: the input's, then what each task predicts."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Any

from manyhead.data.table import Cell, Nested
from manyhead.inference.bulk.rows import Input, InputRow
from manyhead.inference.bulk.scorer import Answers, Chunk
from manyhead.inference.writing import prediction_cells, prediction_columns
from manyhead.recipe.schema import Task, cell_text


class Columns:
    """Names of the ``kept`` columns of the input and of the ``predicted`` ones, and the cells of rows.

    Predicted columns are named ``prediction``, ``label`` and so on; of several tasks, ``TASK_prediction``. An input
    column of such a name is kept as ``input_NAME``. ``flags`` are the predicted ones that say whether a text was cut.
    With ``drop`` rows that no task could predict are left out.
    """

    def __init__(self, tasks: Mapping[str, Task], source: Input, *, drop: bool = False) -> None:
        self.source = source
        own = {name: _named(name, prediction_columns(task), len(tasks) > 1) for name, task in tasks.items()}
        self._widths = {name: len(columns) for name, columns in own.items()}
        self.predicted = list(chain.from_iterable(own.values()))
        self.flags = frozenset(columns[-1] for columns in own.values())
        self.kept = _kept(source.columns, set(self.predicted))
        self.unique = _distinct(self.kept, self.predicted)
        self._drop = drop

    def renamed(self) -> list[tuple[str, str]]:
        """Input columns that get another name, with it."""
        return [(old, new) for old, new in zip(self.source.columns, self.kept, strict=True) if old != new]

    def rows(self, chunk: Chunk) -> Iterator[tuple[InputRow, list[Cell]]]:
        """The rows that are written, each with the cells of the predicted columns, None where there is no answer."""
        found = [_cells(answers, self._widths[name]) for name, answers in chunk.answers.items()]
        for row, problems, *cells in zip(chunk.rows, chunk.problems(), *found, strict=True):
            if not (self._drop and len(problems) == len(chunk.answers)):
                yield row, list(chain.from_iterable(cells))

    def objects(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """The same as what JSON can hold, by column; of input columns of one name the later ones are numbered."""
        for row, cells in self.rows(chunk):
            found = dict(zip(self.unique, map(plain, row.cells), strict=True))
            for name, cell in zip(self.predicted, cells, strict=True):
                found[name] = bool(cell) if name in self.flags and cell is not None else plain(cell)
            yield found


def text(cell: Cell) -> str:
    """A cell as text; empty for a gap."""
    return "" if cell is None else cell_text(cell)


def plain(cell: Cell) -> Any:
    """A cell as JSON has it; JSON knows no infinities."""
    if isinstance(cell, Nested):
        return json.loads(cell, parse_constant=lambda _: None)
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _named(task: str, columns: Sequence[str], prefixed: bool) -> list[str]:
    return [f"{task}_{name}" for name in columns] if prefixed else list(columns)


def _cells(answers: Answers, width: int) -> Iterator[Sequence[Cell]]:
    cells = prediction_cells(answers.task, answers.predictions, answers.truncated)
    for problem in answers.problems:
        yield next(cells) if problem is None else [None] * width


def _kept(columns: Sequence[str], predicted: set[str]) -> list[str]:
    taken = predicted.union(columns)
    kept: list[str] = []
    for name in columns:
        if name in predicted:
            kept.append(_free(chain([f"input_{name}"], (f"input_{number}_{name}" for number in count(2))), taken))
        else:
            kept.append(name)
    return kept


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
