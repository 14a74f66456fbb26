"""Reading exports back in a process that has no manyhead, and comparing what they say with the model itself."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyhead.errors import CheckpointError
from manyhead.export import readers
from manyhead.export.source import Written

_READERS = Path(readers.__file__).parent
# A module that is None cannot be imported.
_WITHOUT = "import runpy, sys; sys.modules['manyhead'] = None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
_WITH = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
_SHOWN_LINES = 12
_SIDES = ("model", "export")


@dataclass(frozen=True)
class Parity:
    """How an export compares with the model on ``texts`` texts.

    ``difference`` is the largest one, relative to the size of what is compared where that is above 1. ``same_labels``
    counts the texts with the same class, None where there are no classes. ``ok``: within the tolerance. ``scores`` are
    the ``metric`` of the model and that of the export, where there are targets.
    """

    name: str
    texts: int
    difference: float
    same_labels: int | None
    tolerance: float | None
    metric: str = ""
    scores: tuple[float, float] | None = None

    @property
    def ok(self) -> bool:
        """Whether it is within the tolerance."""
        return self.tolerance is None or self.difference <= self.tolerance

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "texts": self.texts,
            "largest_difference": self.difference,
            "same_labels": self.same_labels,
            "tolerance": self.tolerance,
            "ok": self.ok,
            **(
                {}
                if self.scores is None
                else {"metric": self.metric, "scores": dict(zip(_SIDES, self.scores, strict=True))}
            ),
        }

    def _scored(self) -> dict[str, Any]:
        if self.scores is None:
            return {}
        return {"metric": self.metric, "scores": dict(zip(_SIDES, self.scores, strict=True))}

    def line(self) -> str:
        """For people."""
        said = f"{self.name}: {self.texts} texts, largest difference {self.difference:.1e}"
        said = said if self.same_labels is None else f"{said}, same labels {self.same_labels} of {self.texts}"
        if self.scores is None:
            return said
        before, after = self.scores
        return f"{said}, {self.metric} {before:.4f}, exported {after:.4f}"


def compare(folder: Path, written: Sequence[Written]) -> list[Parity]:
    """Reads all of ``written`` below ``folder`` back, with one process for each reader.

    Raises `CheckpointError` where a reader fails: the export cannot be loaded by the tool it is for.
    """
    found: dict[int, Parity] = {}
    for reader, needs in dict.fromkeys((each.reader, each.needs_manyhead) for each in written):
        own = [number for number, each in enumerate(written) if each.reader == reader]
        outputs = _read(folder, reader, [written[number] for number in own], needs_manyhead=needs)
        for number, rows in zip(own, outputs, strict=True):
            found[number] = _parity(written[number], rows)
    return [found[number] for number in range(len(written))]


def failures(parities: Iterable[Parity]) -> list[str]:
    """A line for each that is off."""
    return [
        f"{each.line()}; expected at most {each.tolerance:.0e}"
        for each in parities
        if not each.ok and each.tolerance is not None
    ]


def _read(folder: Path, reader: str, written: Sequence[Written], *, needs_manyhead: bool) -> list[list[list[float]]]:
    jobs = [
        {"folder": str(folder / each.folder), "task": each.name, "texts": list(map(list, each.texts)), **each.options}
        for each in written
    ]
    with tempfile.TemporaryDirectory(prefix="manyhead-export-") as place:
        asked, answered = Path(place) / "jobs.json", Path(place) / "outputs.json"
        asked.write_text(json.dumps(jobs), encoding="utf-8")
        program = _WITH if needs_manyhead else _WITHOUT
        # -P: modules in the current folder are not taken for the tools'.
        done = subprocess.run(  # noqa: S603 -- our own programs
            [sys.executable, "-P", "-c", program, str(_READERS / reader), str(asked), str(answered)],
            capture_output=True,
            text=True,
            check=False,
            env=_offline(),
        )
        if done.returncode != 0 or not answered.is_file():
            said = "\n".join(done.stderr.strip().splitlines()[-_SHOWN_LINES:])
            raise CheckpointError(f"{folder}: the export cannot be read back ({reader}):\n{said}")
        return json.loads(answered.read_text(encoding="utf-8"))


def _offline() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}


def _parity(written: Written, rows: list[list[float]]) -> Parity:
    found: NDArray[np.float64] = np.array(rows, np.float64).reshape(len(written.texts), -1)
    expected = written.expected.astype(np.float64)
    if found.shape != expected.shape:
        what = f"{written.folder}: gives {found.shape[1]} numbers a text"
        raise CheckpointError(f"{what}; expected {expected.shape[1]}")
    differences = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    same = int((found.argmax(1) == expected.argmax(1)).sum()) if written.classes else None
    largest = float(differences.max(initial=0.0))
    largest = largest if np.isfinite(largest) else float("inf")
    scores = None if written.score is None else (written.score(expected), written.score(found))
    return Parity(written.name, len(expected), largest, same, written.tolerance, written.metric, scores)
