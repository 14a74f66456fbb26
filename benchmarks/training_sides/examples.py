"""What all sides train on, as files: written by the process that compares them, read by each side.

Axes: T tokens, E examples.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SETTINGS = "work.json"


@dataclass(frozen=True)
class Examples:
    """A task's training examples, each one sequence, a batch of like lengths after the other, from long to short.

    ``ids`` (T,), ``offsets`` (E + 1,) of the sequences in them; ``segment_starts`` (E,): the place of the second text
    in its sequence; ``targets`` (E,); ``rows`` (E,): their places in the training split.
    """

    ids: NDArray[np.integer]
    offsets: NDArray[np.int64]
    segment_starts: NDArray[np.int32]
    targets: NDArray[Any]
    rows: NDArray[np.int64]

    def sequence(self, row: int) -> NDArray[np.integer]:
        """Ids of one example."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    def tokens(self, rows: NDArray[np.integer]) -> int:
        """Tokens of some examples."""
        return int((self.offsets[rows + 1] - self.offsets[rows]).sum())


@dataclass(frozen=True)
class Settings:
    """``rounds`` times ``steps`` batches of each task; ``labels`` of a task: its classes, 1 for a score."""

    data_dir: str | None
    threads: int
    encoder: str
    batch_size: int
    rounds: int
    steps: int
    labels: dict[str, int]


@dataclass(frozen=True)
class Work:
    """Settings and the examples of each task."""

    settings: Settings
    examples: Mapping[str, Examples]

    def batches(self, number: int, *, grouped: bool) -> NDArray[np.integer]:
        """Rows (steps, batch size) of a round, the same for each task: in batches of like lengths, or mixed."""
        settings = self.settings
        count = settings.rounds * settings.steps
        rows = np.arange(count * settings.batch_size)
        if not grouped:
            rows = np.random.default_rng(1).permutation(rows)
        return rows.reshape(count, settings.batch_size)[number :: settings.rounds]

    def save(self, folder: Path) -> None:
        """Writes the files."""
        folder.mkdir()
        (folder / _SETTINGS).write_text(json.dumps(asdict(self.settings)), encoding="utf-8")
        for task, examples in self.examples.items():
            np.savez(folder / f"{task}.npz", **vars(examples))


def load_work(folder: Path) -> Work:
    """Reads what `Work.save` wrote."""
    settings = Settings(**json.loads((folder / _SETTINGS).read_text(encoding="utf-8")))
    examples: dict[str, Examples] = {}
    for task in settings.labels:
        with np.load(folder / f"{task}.npz") as arrays:
            examples[task] = Examples(**arrays)
    return Work(settings, examples)


@dataclass(frozen=True)
class Taken:
    """What a round's steps took but for the first, which is not counted, and the tokens in them without padding."""

    seconds: float
    tokens: int


Block = Callable[[int], Taken]
"""Trains on the examples of a round."""
