"""Processes that are cheap to start: forks of one that has imported everything."""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 120.0


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit code, or minus the signal's number; and all it printed."""

    code: int
    printed: str

    @property
    def last_line(self) -> str:
        """The last line it printed."""
        lines = [line.strip() for line in self.printed.splitlines() if line.strip()]
        return lines[-1] if lines else ""


class Child:
    """A process that runs ``work`` and prints into a file below ``folder``."""

    def __init__(self, work: Callable[[], None], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._printed = folder / f"{time.monotonic_ns()}.txt"
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(work)

    def kill(self) -> None:
        """Sends SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float = TIMEOUT) -> Outcome:
        """Waits for its end. Raises TimeoutError, after killing it, where that does not come."""
        status = self.ended_within(seconds)
        if status is None:
            self.kill()
            os.waitpid(self.pid, 0)
            raise TimeoutError(f"no end after {seconds:.0f} seconds:\n{self._printed.read_text(errors='replace')}")
        return Outcome(os.waitstatus_to_exitcode(status), self._printed.read_text(errors="replace"))

    def ended_within(self, seconds: float) -> int | None:
        """The status it ended with, or None where it still runs after that time."""
        until = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return status
            if time.monotonic() > until:
                return None
            time.sleep(0.002)

    def _run(self, work: Callable[[], None]) -> None:
        code = 1
        try:
            printed = os.open(self._printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(printed, 1)
            os.dup2(printed, 2)
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            for thread in threading.enumerate():
                if thread is not threading.current_thread() and not thread.daemon:
                    thread.join()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def run(work: Callable[[], None], folder: Path) -> Outcome:
    """Runs ``work`` in a process of its own to its end."""
    return Child(work, folder).wait()


def die() -> None:
    """Ends this process by SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)
