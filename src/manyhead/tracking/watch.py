"""``python -m manyhead.tracking.watch JOB``: starts the trackers' processes and sees that they end.

Stdin comes from the run: how it ended, or nothing where it was killed. Stdout goes to it: a line of JSON for each
tracker that has ended. No code of a tracker runs here, so nothing that one does can keep this from ending it.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from manyhead.tracking.jobs import kill, problem, start

_POLL_SECONDS = 0.2
_REST_SECONDS = 0.05
"""Between two readings of what trackers print: one that prints without end is slowed down by it."""
_CHUNK = 1 << 16
_TAIL_BYTES = 4096


class Child:
    """The process of one tracker, with the end of what it printed."""

    def __init__(self, kind: str, job: Mapping[str, Any]) -> None:
        self.kind = kind
        self._tail = b""
        self._process = start("worker", job, stderr=subprocess.STDOUT)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin: IO[bytes] = self._process.stdin
        self.output: IO[bytes] = self._process.stdout
        os.set_blocking(self.output.fileno(), False)

    def read(self) -> bool:
        """Reads what was printed; False when there will be no more."""
        try:
            chunk = os.read(self.output.fileno(), _CHUNK)
        except BlockingIOError:
            return True
        self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
        return bool(chunk)

    def tell(self, status: bytes) -> None:
        """Says how the run ended."""
        with contextlib.suppress(OSError):
            self._stdin.write(status)
            self._stdin.close()

    def ended(self) -> bool:
        """Whether its process has ended; what it has left behind is ended then."""
        if self._process.poll() is None:
            return False
        self.kill()
        self.read()
        return True

    def kill(self) -> None:
        """Ends the process and those that it started."""
        kill(self._process)

    def report(self, told: str | None = None) -> None:
        """Tells the run how it ended."""
        line = {"tracker": self.kind, "problem": told or problem(self._process.wait(), self._tail)}
        with contextlib.suppress(OSError):
            print(json.dumps(line), flush=True)


def watch(children: list[Child], grace_seconds: float) -> None:
    """Returns when all children have ended; ``grace_seconds`` after the run at the latest."""
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    for child in children:
        selector.register(child.output, selectors.EVENT_READ, child)
    said, deadline = b"", float("inf")
    while children and time.monotonic() < deadline:
        for key, _ in selector.select(_POLL_SECONDS):
            if key.data is not None:
                if not key.data.read():
                    selector.unregister(key.fileobj)
                continue
            chunk = os.read(0, _CHUNK)
            said += chunk
            if not chunk or b"\n" in chunk:
                selector.unregister(0)
                deadline = time.monotonic() + grace_seconds
                for child in children:
                    child.tell(said)
        for child in [each for each in children if each.ended()]:
            children.remove(child)
            child.report()
        time.sleep(_REST_SECONDS)
    for child in children:
        child.kill()
        child.report(f"was not done {grace_seconds:g} s after the run and was ended")


def main() -> None:
    """Gives way to the run: in computing, and where memory runs out. The signals that end a run do not end this."""
    job = json.loads(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(10)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    children = [Child(tracker["kind"], {**job["run"], "tracker": tracker}) for tracker in job["trackers"]]
    watch(children, job["grace_seconds"])


if __name__ == "__main__":
    main()
