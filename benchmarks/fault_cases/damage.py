"""Damaged files of the newest checkpoint: a bit flipped, cut short, empty, missing, swapped with the one before."""

import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fault_cases.children import die, run
from fault_cases.sides import Reference, Side
from fault_cases.work import SAVE_EVERY, STEPS


@dataclass(frozen=True)
class Damaged:
    """What was done to a file, and how the run went on.

    ``named``: what of the damage the output names, "the file", "its folder" or nothing. ``went_on_after`` is the step
    of the checkpoint in use, None for a start anew; ``newest`` that of the damaged one. ``same``: the run ended with
    the bits of the one that nothing happened to.
    """

    file: str
    what: str
    code: int
    named: str
    newest: int
    went_on_after: int | None
    same: bool
    told: str

    @property
    def verdict(self) -> str:
        """All that in a few words."""
        if self.code:
            return f"stopped, exit {self.code}, {self.named or 'nothing'} named"
        noticed = f"{self.named} named" if self.named else "unnoticed"
        if self.went_on_after != self.newest:
            where = "begun anew" if self.went_on_after is None else "gone on after the save before"
            return f"{noticed}, {where}, {'same' if self.same else 'other'} weights"
        return f"{noticed}, {'same' if self.same else 'other'} weights"


class Interrupted:
    """A run that was killed between its last two saves, with two checkpoints, and how it goes on undamaged."""

    def __init__(self, side: Side, reference: Reference, folder: Path) -> None:
        self.side, self.reference, self.folder = side, reference, folder
        self.run = folder / "interrupted"

        def watch(step: int) -> None:
            if step == STEPS - SAVE_EVERY // 2:
                until = time.monotonic() + 30.0
                while time.monotonic() < until and not self._has_saved(STEPS - SAVE_EVERY):
                    time.sleep(0.01)
                die()

        ended = run(lambda: side.train(self.run, watch), folder / "out")
        if ended.code != -9 or len(side.checkpoints(self.run)) != 2:
            raise RuntimeError(f"{side.name}: no run to damage ({ended.code})\n{ended.printed}")
        copy = self.copied()
        plain = run(lambda: side.train(copy), folder / "out")
        if plain.code or not reference.is_met_by(side, copy):
            raise RuntimeError(f"{side.name}: an undamaged run did not go on ({plain.code})\n{plain.printed}")
        self.plain = plain.printed

    def _has_saved(self, step: int) -> bool:
        return any(int(path.name.rpartition("-")[2]) == step for path in self.side.checkpoints(self.run))

    def copied(self) -> Path:
        """A copy of the run, in the place of the copy before."""
        copy = self.folder / "damaged"
        shutil.rmtree(copy, ignore_errors=True)
        return shutil.copytree(self.run, copy, symlinks=True)

    def damaged(self, file: Path, what: str, change: Callable[[Path], None]) -> Damaged:
        """Changes ``file`` in a copy of the run, and takes that up again."""
        copy = self.copied()
        change(copy / file.relative_to(self.run))
        ended = run(lambda: self.side.train(copy), self.folder / "out")
        return Damaged(
            file=str(file.relative_to(self.run)),
            what=what,
            code=ended.code,
            named=self._named(file, ended.printed),
            newest=int(self.side.checkpoints(self.run)[-1].name.rpartition("-")[2]),
            went_on_after=self.side.went_on_after(ended.printed),
            same=ended.code == 0 and self.reference.is_met_by(self.side, copy),
            told=ended.last_line,
        )

    def _named(self, file: Path, printed: str) -> str:
        """What is named in a line that is not printed where nothing is damaged."""
        lines = set(printed.splitlines()) - set(self.plain.splitlines())
        if any(file.name in line for line in lines):
            return "the file"
        return "its folder" if any(file.parent.name in line for line in lines) else ""


def flips(interrupted: Interrupted, times: int) -> list[Damaged]:
    """One bit flipped in each file that going on may read, ``times`` times at drawn places."""
    newest = interrupted.side.checkpoints(interrupted.run)[-1]
    files = sorted(path for path in newest.rglob("*") if path.is_file())
    draws = random.Random(0)
    found: list[Damaged] = []
    for file in [*files, *interrupted.side.other_files(interrupted.run)]:
        for _ in range(times):
            bit = draws.randrange(8 * file.stat().st_size)

            def flip(path: Path, bit: int = bit) -> None:
                data = bytearray(path.read_bytes())
                data[bit // 8] ^= 1 << bit % 8
                path.write_bytes(data)

            found.append(interrupted.damaged(file, f"bit {bit} flipped", flip))
    return found


def broken(interrupted: Interrupted) -> list[Damaged]:
    """The weights, the optimiser's state and the run's state: cut in half, empty, missing, and of another step."""
    side = interrupted.side
    before, newest = side.checkpoints(interrupted.run)

    def swap(path: Path) -> None:
        other = path.parent.with_name(before.name) / path.name
        data, other_data = path.read_bytes(), other.read_bytes()
        path.write_bytes(other_data)
        other.write_bytes(data)

    ways: dict[str, Callable[[Path], None]] = {
        "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
        "empty": lambda path: os.truncate(path, 0),
        "missing": Path.unlink,
        "swapped with that of the checkpoint before": swap,
    }
    names = (side.weights, side.optimizer, side.state)
    return [interrupted.damaged(newest / name, what, way) for what, way in ways.items() for name in names]
