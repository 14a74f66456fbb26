"""SIGKILL at each moment of saving, and at random moments; then the run is taken up again."""

import json
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from fault_cases.children import Child, die, run
from fault_cases.sides import Reference, Side
from fault_cases.work import SAVE_EVERY

SAVE = 3 * SAVE_EVERY
"""The save that is killed: the third, which also removes the first."""

MET = 0.75
"""Share of the states of a save that must be met again."""

State = tuple[str, ...]
"""What lies in the folder of a save: its files, marked where they are empty, and what is left of the oldest save."""


@dataclass(frozen=True)
class Killed:
    """A kill, and how the run went on.

    ``resumed``: to its end; ``same``: with the bits of the run that nobody killed. ``told`` is the last line that the
    user reads.
    """

    moment: str
    resumed: bool
    same: bool
    went_on_after: int | None
    told: str


def while_saving(side: Side, reference: Reference, folder: Path) -> list[Killed]:
    """One kill in each state that the folder goes through during a save, in their order."""
    listed = run(lambda: side.train(folder / "listed", _Look(folder / "listed", _print_state).watch), folder / "out")
    states: list[State] = [
        tuple(json.loads(line[7:])) for line in listed.printed.splitlines() if line.startswith("state: ")
    ]
    if listed.code or len(states) < 2:
        raise RuntimeError(f"{side.name}: the states of a save could not be listed ({listed.code})\n{listed.printed}")
    killed: list[Killed] = []
    for number, state in enumerate(states):
        killed_run = folder / f"save-{number}"

        def die_in(seen: State, state: State = state) -> None:
            if seen == state:
                die()

        ended = run(lambda at=killed_run, hit=die_in: side.train(at, _Look(at, hit).watch), folder / "out")
        if ended.code not in (0, -9):
            raise RuntimeError(f"{side.name}: ended with {ended.code} before it was killed\n{ended.printed}")
        # A state that lasts a moment may not be met again where a thread of its own writes the files.
        if ended.code == -9:
            killed.append(go_on(side, reference, killed_run, _moment(states, number)))
    if len(killed) < MET * len(states):
        raise RuntimeError(f"{side.name}: only {len(killed)} of {len(states)} states of a save were met again")
    return killed


def at_random(side: Side, reference: Reference, folder: Path, kills: int) -> list[Killed]:
    """Kills at moments drawn evenly from the time that a run takes."""
    draws = random.Random(0)
    killed: list[Killed] = []
    while len(killed) < kills:
        seconds = draws.uniform(0.02, 1.0) * reference.seconds
        killed_run = folder / f"random-{len(killed)}"
        child = Child(lambda at=killed_run: side.train(at), folder / "out")
        if child.ended_within(seconds) is None:
            child.kill()
            child.wait()
            killed.append(go_on(side, reference, killed_run, f"after {seconds:.2f} s"))
        else:
            killed_run.rename(folder / f"too-late-{time.monotonic_ns()}")
    return killed


def go_on(side: Side, reference: Reference, killed_run: Path, moment: str) -> Killed:
    """Takes a run up again as it is, and compares its end."""
    ended = run(lambda: side.train(killed_run), killed_run.parent / "out")
    resumed = ended.code == 0
    same = resumed and reference.is_met_by(side, killed_run)
    return Killed(moment, resumed, same, side.went_on_after(ended.printed), ended.last_line)


class _Look:
    """Calls ``seen`` for each new state that a folder comes into, looking whenever something may have been written."""

    def __init__(self, folder: Path, seen: Callable[[State], None]) -> None:
        self._folder, self._seen = folder, seen
        self._active = False
        self._known: set[State] = {()}
        self._oldest = 0
        self._lock = threading.Lock()
        threading.setprofile(self._look)

    def watch(self, step: int) -> None:
        """Looks from the save's own step on: writing may go on beside the next ones."""
        if step == SAVE:
            self._oldest = sum(_step_of(path) == SAVE_EVERY for path in _files(self._folder))
        self._active = step >= SAVE
        sys.setprofile(self._look if self._active else None)

    def _look(self, frame: FrameType, event: str, argument: Any) -> None:
        if not self._active or not _may_have_written(frame, event, argument):
            return
        with self._lock:
            state = self._state()
            if state not in self._known:
                self._known.add(state)
                self._seen(state)

    def _state(self) -> State:
        files = _files(self._folder)
        names = sorted(_shown(path, self._folder) for path in files if _step_of(path) == SAVE)
        oldest = sum(_step_of(path) == SAVE_EVERY for path in files)
        if not names or oldest == self._oldest:
            return tuple(names)
        return (*names, "oldest save gone" if oldest == 0 else "oldest save in part")


def _may_have_written(frame: FrameType, event: str, argument: Any) -> bool:
    """Whether a call of Python's own file functions, safetensors or torch.save has just returned."""
    if event == "return":
        return frame.f_code.co_filename.endswith("/torch/serialization.py")
    if event != "c_return":
        return False
    module = getattr(argument, "__module__", None) or type(getattr(argument, "__self__", None)).__module__
    return module.startswith(("posix", "_io", "io", "safetensors"))


def _files(folder: Path) -> list[Path]:
    """All files, and links, below a folder that may change meanwhile."""
    found: list[Path] = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            found += _files(Path(entry)) if entry.is_dir(follow_symlinks=False) else [Path(entry)]
    return found


def _step_of(path: Path) -> int | None:
    """The step of the checkpoint that a file belongs to, or that a link leads to."""
    try:
        place = path.readlink() if path.is_symlink() else path.parent
    except FileNotFoundError:
        return None
    number = re.search(r"-(\d+)$", place.name)
    return None if number is None else int(number[1])


def _shown(path: Path, folder: Path) -> str:
    """Its name, less what temporary names have of the process and of chance."""
    parts = path.relative_to(folder).parts
    name = "/".join(f".tmp-{part.rpartition('-')[2]}" if part.startswith(".tmp-") else part for part in parts)
    try:
        return name if path.is_symlink() or path.stat().st_size else f"{name} (empty)"
    except FileNotFoundError:
        return name


def _print_state(state: State) -> None:
    sys.stdout.write(f"state: {json.dumps(state)}\n")
    sys.stdout.flush()


def _moment(states: Sequence[State], number: int) -> str:
    """What the state has that the one before it had not."""
    before = set(states[number - 1]) if number else set[str]()
    added = [Path(name) for name in states[number] if name not in before]
    if len(added) > 1 and len({path.parent for path in added}) == 1:
        return f"{added[0].parent.name}/ with all"
    return ", ".join(path.name for path in added) or "a file gone"
