"""A process that has imported what ``manyhead predict`` needs and forks a child for each command, which may be killed.

`Commands` starts one; run as a script this file is that process. Chunks have `CHUNK_ROWS` rows, so that few make many.
"""

import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job_process import JobProcess

CHUNK_ROWS = 8


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit ``code``, negative for a signal; what it printed, and visits of places."""

    code: int
    output: str
    visits: Mapping[str, int]


class Commands(JobProcess):
    """Starts the process; use it as a context."""

    def __init__(self) -> None:
        super().__init__(__file__)

    def do(self, *words: object, place: str | None = None, visit: int = 1, number: int = signal.SIGKILL) -> Ended:
        """Runs ``manyhead WORDS...``; the signal ``number`` comes at the visit number ``visit`` of ``place``."""
        job = {"words": [str(word) for word in words], "place": place, "visit": visit, "number": number}
        return Ended(**self.ask(job))


def serve() -> None:
    """Runs commands, one a line, until there are no more."""
    import torch

    from manyhead.inference.bulk import scorer

    torch.set_num_threads(1)
    scorer.CHUNK_ROWS = CHUNK_ROWS
    for line in sys.stdin:
        told = Path(tempfile.gettempdir()) / f"manyhead-told-{os.getpid()}"
        pid = os.fork()
        if pid == 0:
            _run(json.loads(line), told)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output, _, counts = told.read_text(errors="replace").partition("\0")
        told.unlink()
        print(json.dumps({"code": code, "output": output, "visits": json.loads(counts or "{}")}), flush=True)


def _run(job: dict[str, Any], told: Path) -> None:
    """The child's life: it never returns."""
    handle = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    visits: Counter[str] = Counter()

    def hook(place: str, value: Any) -> Any:
        visits[place] += 1
        if place == job["place"] and visits[place] == job["visit"]:
            os.kill(os.getpid(), job["number"])
        return value

    from manyhead.cli.main import app
    from manyhead.faults import injected

    code = 1
    try:
        with injected(hook):
            app(job["words"])
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(handle, b"\0" + json.dumps(visits).encode())
        os._exit(code)


if __name__ == "__main__":
    serve()
