"""Fingerprints of texts, by which equal rows are found within a split and between splits.

Texts are compared after folding case and white space, as 64-bit hashes that lie in memory-mapped files where they are
many. What is looked up at a time is one sorted copy of a split's hashes: 8 bytes a text, whatever its length.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from manyhead.data.examples import Examples
from manyhead.data.growing import GrowingColumn
from manyhead.data.tokens import in_batches
from manyhead.recipe.schema import Split

Hashes = NDArray[np.uint64]
What = Literal["example", "text"]
"""What of two rows is the same: all of their texts, or at least one."""
WHATS: tuple[What, ...] = get_args(What)

Lines = list[tuple[int, int]]
"""Pairs of lines: of the earlier or source row, and of the later one."""

SHOWN_PAIRS = 5
"""Pairs of lines that are told; the rest are counted."""

_CHUNK = 1 << 16
_HASH_BYTES = 8
_ODD = np.uint64(0x9E3779B97F4A7C15)
_EMPTY = np.frombuffer(blake2b(b"", digest_size=_HASH_BYTES).digest(), np.uint64)[0]


@dataclass(frozen=True)
class Prints:
    """Fingerprints of a split's examples: of each as a whole (E,), and of its texts (E, n); with lines and targets.

    The two of a pair count as the same in any order. ``targets`` (E,) are NaN in a split without.
    """

    task: str
    split: Split
    wholes: Hashes
    texts: Hashes
    lines: NDArray[np.int64]
    targets: NDArray[np.float64]

    @property
    def name(self) -> str:
        """TASK.SPLIT."""
        return f"{self.task}.{self.split}"

    def of(self, what: What) -> Hashes:
        """What is compared, (E, 1) or (E, n)."""
        return self.wholes[:, None] if what == "example" else self.texts


def read_prints(examples: Examples) -> Prints:
    """Reads all examples. Raises `WriteError` where there is no room for the fingerprints of many."""
    width = len(examples.task.text)
    numbers = (np.uint64, np.uint64, np.int64, np.float64)
    with ExitStack() as stack:
        wholes, texts, lines, targets = (stack.enter_context(GrowingColumn(dtype)) for dtype in numbers)
        for batch in in_batches(examples):
            digests = b"".join([_digest(text) for example in batch for text in example.texts])
            hashes = np.frombuffer(digests, np.uint64).reshape(-1, width)
            texts.append(hashes)
            if width == 2:
                wholes.append(_unordered(hashes))
            lines.append(np.array([example.line for example in batch]))
            targets.append(np.array([np.nan if example.target is None else example.target for example in batch]))
        each = texts.finish().reshape(-1, width)
        whole = wholes.finish() if width == 2 else each[:, 0]
        return Prints(examples.name, examples.split, whole, each, lines.finish(), targets.finish())


def duplicates(prints: Prints) -> tuple[int, int, Lines]:
    """Examples that stood in an earlier row, those of them with another target than the first, and lines of the latter.

    Lines are of the first and the later row; the first few pairs are told, by the later row.
    """
    known = np.sort(prints.wholes)
    repeated = known[1:][known[1:] == known[:-1]]
    del known
    count = len(repeated)
    is_first = np.ones(count, bool)
    is_first[1:] = repeated[1:] != repeated[:-1]
    repeated = repeated[is_first]
    first = np.full(len(repeated), -1)
    conflicts, shown = 0, Lines()
    for start, hashes in _chunks(prints.wholes):
        rows, places = _found(repeated, hashes)
        distinct, earliest = np.unique(places, return_index=True)
        rows += start
        is_unseen = first[distinct] < 0
        first[distinct[is_unseen]] = rows[earliest[is_unseen]]
        before = first[places]
        targets = prints.targets[rows]
        differ = (targets != prints.targets[before]) & ~np.isnan(targets)
        conflicts += int(differ.sum())
        more = slice(SHOWN_PAIRS - len(shown))
        pairs = prints.lines[before[differ][more]].tolist(), prints.lines[rows[differ][more]].tolist()
        shown += zip(*pairs, strict=True)
    return count, conflicts, shown


def shared_rows(source: Prints, known: Hashes, into: Prints, what: What) -> tuple[int, Lines]:
    """How many rows of ``into`` are in ``source`` too, and lines of the first few: of ``source``, and of ``into``.

    ``known`` are the sorted hashes of ``source`` (`sorted_hashes`). Empty texts count as examples only.
    """
    count, shown = 0, Lines()
    for start, hashes in _chunks(into.of(what)):
        places, _ = _found(known, hashes.ravel())
        if what == "text":
            places = places[hashes.ravel()[places] != _EMPTY]
        rows, first = np.unique(places // hashes.shape[1], return_index=True)
        count += len(rows)
        for row, place in zip(rows[: SHOWN_PAIRS - len(shown)].tolist(), places[first].tolist(), strict=False):
            there = _first_row(source.of(what), int(hashes.ravel()[place]))
            shown.append((int(source.lines[there]), int(into.lines[start + row])))
    return count, shown


def sorted_hashes(prints: Prints, what: What) -> Hashes:
    """All that `Prints.of` gives, sorted, (E,) or (E n,)."""
    return np.sort(prints.of(what), axis=None)


def _digest(text: str) -> bytes:
    return blake2b(" ".join(text.casefold().split()).encode(), digest_size=_HASH_BYTES).digest()


def _unordered(pairs: Hashes) -> Hashes:
    """One hash for the two of each row, whatever their order."""
    return pairs.min(axis=1) * _ODD + pairs.max(axis=1)


def _chunks(values: Hashes) -> Iterator[tuple[int, Hashes]]:
    """Stretches of rows, each with the number of its first."""
    for start in range(0, len(values), _CHUNK):
        yield start, values[start : start + _CHUNK]


def _found(known: Hashes, asked: Hashes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The places of ``asked`` whose values are among ``known``, which is sorted, and their places there."""
    places = np.searchsorted(known, asked)
    within = np.flatnonzero(places < len(known))
    within = within[known[places[within]] == asked[within]]
    return within, places[within]


def _first_row(values: Hashes, wanted: int) -> int:
    """The first row that holds a value."""
    return next(start + int(rows[0]) for start, chunk in _chunks(values) if len(rows := np.nonzero(chunk == wanted)[0]))
