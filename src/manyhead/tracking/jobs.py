"""What the processes agree on. Free of everything but the standard library: they start quickly."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DONE = 64
"""Exit code of a tracker's process that was given everything. A tracker that ends its process uses another one."""

_POLL_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1


def start(module: str, job: Mapping[str, Any], *, stderr: int) -> "subprocess.Popen[bytes]":
    """Starts ``manyhead.tracking.MODULE`` with ``job``, pipes to it and from it, in a session of its own.

    A terminal's Ctrl-C is not for it. It finds the modules that this process finds, and computes on one thread.
    """
    path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
    return subprocess.Popen(  # noqa: S603 - this interpreter and our own module
        [sys.executable, "-P", "-m", f"manyhead.tracking.{module}", json.dumps({**job, "parent": os.getpid()})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process of `start` and those that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def end_with(parent: int) -> None:
    """Sees that this process, which `start` made, does not outlive ``parent``, whatever it hangs in.

    A tracker that hangs with Python's lock stops all threads, so Linux is asked as well.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os.killpg(0, signal.SIGKILL)


def problem(code: int, output: bytes) -> str | None:
    """What went wrong in a tracker's process, by its exit code and the end of its output; None if nothing did."""
    if code == DONE:
        return None
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    if code == 1 and lines:
        return "".join(letter for letter in lines[-1].strip() if letter.isprintable())[:300]
    return f"its process was ended by signal {-code}" if code < 0 else f"it ended its process with {code}"
