"""A split of a task as training and scoring see it: tokens, targets, and where each row came from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from manyhead.data.table import Rejects
from manyhead.data.tokens import TokenStore
from manyhead.errors import Problem
from manyhead.recipe.schema import Split


@dataclass(frozen=True)
class Tally:
    """What became of the rows of a split: those ``used``, the rejected ones, and what was noticed.

    ``empty_texts``: pairs of which one text is empty, which are used. ``replaced`` lone surrogates and ``stray_quotes``
    (rows whose quotes were read as plain characters) are counted in the whole file.
    """

    used: int
    rejects: Rejects
    empty_texts: int
    replaced: int
    stray_quotes: int

    @property
    def rows(self) -> int:
        """All rows of the split."""
        return self.used + self.rejects.total


class StringColumn(Sequence[str]):
    """Texts in two arrays: UTF-8 bytes end to end, and where each begins (one more than texts)."""

    def __init__(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self._data = data
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self._data[self._offsets[place] : self._offsets[place + 1]].tobytes().decode()

    def take(self, places: NDArray[np.int64]) -> "StringColumn":
        """Some of the texts, in the order given."""
        texts = [self[place].encode() for place in places.tolist()]
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) for text in texts], out=offsets[1:])
        return StringColumn(np.frombuffer(b"".join(texts), np.uint8), offsets)


@dataclass(frozen=True)
class TaskData:
    """A split of a task, ready for training or scoring. Arrays are memory-mapped and read-only.

    ``targets`` (E,): int64 class indices, float32 scores, or None; ``lines`` (E,) int64 of the file, from 1; ``ids``
    of the rows. ``data_hash`` is the sha256 of the file, ``label_hash`` that of the targets. ``tally`` counts what
    became of the rows, and ``warnings`` says so where something did.
    """

    task: str
    split: Split
    tokens: TokenStore
    targets: NDArray[np.int64] | NDArray[np.float32] | None
    lines: NDArray[np.int64]
    ids: StringColumn
    note: str
    data_hash: str
    label_hash: str | None
    tally: Tally
    warnings: tuple[Problem, ...]

    @property
    def n_examples(self) -> int:
        """E."""
        return self.tokens.n_examples

    def take(self, rows: NDArray[np.int64]) -> "TaskData":
        """Some of the rows, in the order given; hashes, tally and warnings stay those of the split."""
        return replace(
            self,
            tokens=self.tokens.take(rows),
            targets=None if self.targets is None else self.targets[rows],
            lines=self.lines[rows],
            ids=self.ids.take(rows),
        )
