"""A process that has imported everything and forks a child for each job: a run that trains and may be killed.

`Forge` starts one and gives it jobs; run as a script this file is that process. Forking saves the seconds of importing,
and that process has no other threads.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from job_process import JobProcess

LIMIT_SECONDS = 300


@dataclass(frozen=True)
class Job:
    """Trains ``recipe`` in the folder ``out``; caches are kept in ``cache``.

    SIGKILL ends it at the visit number ``visit`` of a ``place`` (a signal of another ``number`` is sent there), or
    after ``seconds``. Where an example of the row ``bad_row`` of reviews is in a step, its loss is NaN.
    """

    recipe: Mapping[str, Any]
    out: str
    cache: str
    resume: bool = True
    place: str | None = None
    visit: int = 1
    number: int = signal.SIGKILL
    seconds: float | None = None
    bad_row: int | None = None


@dataclass(frozen=True)
class Done:
    """How a job ended: exit ``code``, negative for the signal that killed it; what it printed, and visits of places."""

    code: int
    output: str
    visits: Mapping[str, int]
    seconds: float


class Forge(JobProcess):
    """Starts the process; use it as a context."""

    def __init__(self) -> None:
        super().__init__(__file__)

    def do(self, job: Job) -> Done:
        return Done(**self.ask(asdict(job)))


class Planted:
    """The hook of a child: counts visits, ends it at one, and makes losses NaN."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.visits: Counter[str] = Counter()
        self.bad = False

    def __call__(self, place: str, value: Any) -> Any:
        self.visits[place] += 1
        if place == self.job.place and self.visits[place] == self.job.visit:
            os.kill(os.getpid(), self.job.number)
        if place == "forward":
            self.bad = any(part.task == "reviews" and self.job.bad_row in part.examples for part in value)
        if place == "losses" and self.bad:
            return {task: loss * float("nan") if task == "reviews" else loss for task, loss in value.items()}
        return value


def serve() -> None:
    """Does jobs, one a line, until there are no more."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import pytorch_optimizer  # noqa: F401
    import torch
    import torchjd  # noqa: F401

    import manyhead.build
    import manyhead.cli.main
    import manyhead.report.page  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        job = Job(**json.loads(line))
        told = Path(f"{job.out}.told-{os.getpid()}")
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _train(job, told)
        code = os.waitstatus_to_exitcode(_wait(pid, began, job.seconds))
        output, visits = "", {}
        if told.exists():
            output, _, counts = told.read_text(errors="replace").rpartition("\0")
            visits = json.loads(counts) if output or counts.startswith("{") else {}
            told.unlink()
        print(json.dumps(asdict(Done(code, output, visits, time.monotonic() - began))), flush=True)


def _wait(pid: int, began: float, seconds: float | None) -> int:
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() - began > (LIMIT_SECONDS if seconds is None else seconds):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def _train(job: Job, told: Path) -> None:
    """The child's life: it never returns."""
    code = 1
    os.environ["MANYHEAD_CACHE"] = job.cache
    handle = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    planted = Planted(job)
    try:
        from manyhead.build import train
        from manyhead.errors import ManyheadError
        from manyhead.faults import injected
        from manyhead.recipe.load import load_recipe

        with injected(planted):
            try:
                train(load_recipe(job.recipe), out=Path(job.out), resume=job.resume)
                code = 0
            except ManyheadError as error:
                print(error)
                code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(handle, b"\0" + json.dumps(planted.visits).encode())
        os._exit(code)


if __name__ == "__main__":
    serve()
