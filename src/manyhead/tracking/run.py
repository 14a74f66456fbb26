"""A run's side of its trackers: starting them, and leaving them."""

import contextlib
import json
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO

from manyhead.errors import DivergedError, Problem, StoppedError
from manyhead.recipe.schema import Options, Recipe
from manyhead.trackers import TrackerOptions
from manyhead.trackers.base import Status
from manyhead.tracking.jobs import start
from manyhead.training.signals import Interruption

WAIT_SECONDS = 3.0
"""How long a run waits at its end for its trackers."""

GRACE_SECONDS = 30.0
"""How long after the run's end a tracker may go on; then its process is ended."""


def missing_packages(recipe: Recipe) -> Iterator[Problem]:
    """Yields a problem for each tracker whose package is not installed."""
    for place, options in enumerate(recipe.trackers):
        package = options.package if isinstance(options, TrackerOptions) else None
        # A folder of that name, such as wandb makes in the current one, is found too, but has no origin.
        if package is not None and ((spec := find_spec(package)) is None or spec.origin is None):
            assert isinstance(options, TrackerOptions)
            yield Problem(
                f"the package '{package}' is not installed",
                key=f"trackers.{place}",
                expected="it for this tracker",
                do=f"run {options.install}, or remove the tracker",
            )


class Trackers:
    """The trackers of the run in the folder ``run``. They follow its log from `begin` to the end of the block.

    Nothing that they do is waited for but `WAIT_SECONDS` at the end; ``tell`` is given a line about each that failed.
    """

    def __init__(self, run: Path, run_id: str, trackers: Sequence[Options], tell: Callable[[str], None]) -> None:
        self._run = run
        self._id = run_id
        self._options = {options.kind: options for options in trackers}
        self._tell = tell
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Starts them. The log has to be as long as it is to be: from here on it only grows."""
        if not self._options:
            return
        job = {
            "run": {"run": str(self._run.resolve()), "id": self._id},
            "trackers": [options.model_dump(by_alias=True) for options in self._options.values()],
            "grace_seconds": GRACE_SECONDS,
        }
        try:
            self._process = start("watch", job, stderr=subprocess.DEVNULL)
        except OSError as error:
            self._tell(f"the trackers could not be started: {error}; training is not harmed")

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is None:
            return
        try:
            self._leave(self._process, _status(kind))
        finally:
            # It may outlive this; whoever waits for it keeps it from becoming a zombie.
            threading.Thread(target=self._process.wait, daemon=True).start()

    def _leave(self, process: "subprocess.Popen[bytes]", status: Status) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdout as answers:
            with contextlib.suppress(OSError), process.stdin as control:
                control.write(f"{status}\n".encode())
            waiting = set(self._options)
            for line in _lines(answers, time.monotonic() + WAIT_SECONDS):
                tracker, problem = _answer(line)
                waiting.discard(tracker)
                if tracker in self._options and problem is not None:
                    self._tell(f"tracker {tracker}: {problem}; {self._mend(tracker)}")
                if not waiting:
                    return
        left = f"is not done and is ended {GRACE_SECONDS:g} s after the run"
        if process.poll() is not None:
            left = "was ended before it was done"
        for tracker in sorted(waiting):
            self._tell(f"tracker {tracker} {left}; {self._mend(tracker)}")

    def _mend(self, tracker: str) -> str:
        return f"training is not harmed; what is missing there comes by manyhead track {self._run} --to {tracker}"


def _status(error: type[BaseException] | None) -> Status:
    """How a run ended that ended by ``error``, or by none."""
    if error is None:
        return "finished"
    if issubclass(error, StoppedError | Interruption):
        return "stopped"
    return "diverged" if issubclass(error, DivergedError) else "failed"


def _answer(line: bytes) -> tuple[str, str | None]:
    """A tracker and its problem; the tracker is empty in a line that Python, not `watch`, printed on its way up."""
    try:
        found = json.loads(line)
        return str(found["tracker"]), None if found["problem"] is None else str(found["problem"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", None


def _lines(stream: IO[bytes], deadline: float) -> Iterator[bytes]:
    """Whole lines of ``stream`` until it ends, or the deadline passes."""
    rest = b""
    while (left := deadline - time.monotonic()) > 0 and select.select([stream], [], [], left)[0]:
        chunk = os.read(stream.fileno(), 1 << 16)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
