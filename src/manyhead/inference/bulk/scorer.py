"""`Scorer`: rows in, chunks of rows with the answers of several tasks out, from one pass over the rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from manyhead.data.table import Nested
from manyhead.data.tokens import TokenStore
from manyhead.errors import ManyheadError
from manyhead.inference.ahead import ahead
from manyhead.inference.bulk.rows import Input, InputRow
from manyhead.inference.outputs import TaskPredictions
from manyhead.inference.predictor import Encoding, Model
from manyhead.recipe.schema import Task

CHUNK_ROWS = 4096
"""Rows that are predicted and written together. A job that goes on begins at a chunk, so that its bits are the same."""


@dataclass(frozen=True)
class Answers:
    """Of one task: what kept each row of a chunk from being predicted, or None; and the predictions of all others."""

    task: Task
    problems: Sequence[str | None]
    predictions: TaskPredictions
    truncated: NDArray[np.bool_]


@dataclass(frozen=True)
class Chunk:
    """Some rows, in order, and the answers of each task.

    ``is_whole`` is False for what was read of a chunk before the input could not be read on.
    """

    rows: Sequence[InputRow]
    answers: Mapping[str, Answers]
    is_whole: bool = True

    def problems(self) -> Iterator[dict[str, str]]:
        """For each row what kept tasks from predicting it, by task."""
        names = list(self.answers)
        for found in zip(*(answers.problems for answers in self.answers.values()), strict=True):
            yield {name: problem for name, problem in zip(names, found, strict=True) if problem is not None}


@dataclass(frozen=True)
class _Tokens:
    """A chunk before it is predicted: the problems of each task, and the tokens of each encoding."""

    rows: list[InputRow]
    is_whole: bool
    problems: dict[str, list[str | None]]
    stores: list[tuple[Encoding, TokenStore]]


class Scorer:
    """Predicts for the rows of inputs with all of ``tasks`` at once.

    Tasks that read the same columns in the same way share one encoding. ``tick`` is told of rows that are done.
    """

    def __init__(self, model: Model, tasks: Mapping[str, Task], tick: Callable[[int], None] | None = None) -> None:
        self.tasks = tasks
        self.model = model
        self._tick = tick
        by_columns: dict[tuple[str, ...], list[str]] = {}
        for name, task in tasks.items():
            by_columns.setdefault(tuple(task.text), []).append(name)
        self._encodings = {columns: model.encodings(names) for columns, names in by_columns.items()}

    def chunks(self, source: Input, *, skip: int = 0, read_ahead: bool = True) -> Iterator[Chunk]:
        """The rows of ``source`` behind the first ``skip``, with their answers.

        With ``read_ahead`` another thread reads and tokenises the next chunk meanwhile; it cannot be interrupted while
        it waits for a pipe. Raises `DataError` where the input cannot be read on, behind the rows before that.
        """
        for columns in self._encodings:
            source.places(columns)
        chunks = self._tokenised(source, skip)
        for each in ahead(chunks) if read_ahead else chunks:
            found: dict[str, tuple[TaskPredictions, NDArray[np.bool_]]] = {}
            for encoding, store in each.stores:
                found |= self.model.predict_tokens(encoding, [store] if store.n_examples else [])
            answers = {name: Answers(task, each.problems[name], *found[name]) for name, task in self.tasks.items()}
            yield Chunk(each.rows, answers, each.is_whole)
            if self._tick is not None:
                self._tick(len(each.rows))

    def _tokenised(self, source: Input, skip: int) -> Iterator[_Tokens]:
        places = {columns: source.places(columns) for columns in self._encodings}
        for rows, is_whole in _in_chunks(islice(source.rows, skip, None)):
            problems: dict[str, list[str | None]] = {}
            stores: list[tuple[Encoding, TokenStore]] = []
            for columns, encodings in self._encodings.items():
                found = [_texts(row, places[columns]) for row in rows]
                texts = [each for each in found if not isinstance(each, str)]
                for encoding in encodings:
                    for name in encoding.tasks:
                        problems[name] = [each if isinstance(each, str) else None for each in found]
                    stores.append((encoding, self.model.tokenized(encoding, texts)))
            yield _Tokens(rows, is_whole, problems, stores)


def _in_chunks(rows: Iterable[InputRow]) -> Iterator[tuple[list[InputRow], bool]]:
    """Lists of up to `CHUNK_ROWS` rows, and whether each is whole; what fails to be read does so behind its chunk."""
    taken: list[InputRow] = []
    try:
        for row in rows:
            taken.append(row)
            if len(taken) == CHUNK_ROWS:
                yield taken, True
                taken = []
    except ManyheadError:
        if taken:
            yield taken, False
        raise
    if taken:
        yield taken, True


def _texts(row: InputRow, places: Sequence[int]) -> tuple[str, ...] | str:
    """The texts of a row, or why it has none. An empty text is one."""
    if row.problem is not None:
        return row.problem
    cells = [row.cells[place] for place in places]
    if any(isinstance(cell, Nested) for cell in cells):
        return "the text is a list or an object"
    return "no text" if any(cell is None for cell in cells) else tuple(str(cell) for cell in cells)
