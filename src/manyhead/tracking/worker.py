"""``python -m manyhead.tracking.worker JOB``: one tracker's process, which reads metrics.jsonl as it grows.

It ends with `DONE` when all is written, whatever the tracker may do on its own, or with the process that started it.
Stdin says how the run ended.
"""

import json
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast, get_args

from manyhead.recipe.layers import plain
from manyhead.recipe.load import load_recipe
from manyhead.recipe.tables import builder
from manyhead.trackers.base import Place, Status, Tracker, read_record
from manyhead.tracking.jobs import DONE, end_with

METRICS = "metrics.jsonl"
ARTIFACTS = ("summary.json", "report.html")

_POLL_SECONDS = 0.5
_CHUNK = 1 << 16


class Log:
    """The lines of a file, those too that come until ``control`` is closed; ``status`` is what was written there."""

    def __init__(self, path: Path, control: int) -> None:
        self.status: Status | None = None
        self._path = path
        self._control = control
        self._file: BinaryIO | None = None

    def __iter__(self) -> Iterator[str]:
        rest = b""
        while True:
            over = self.status is not None
            if chunk := self._read():
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
            elif over:
                return
            else:
                self._wait()

    def _read(self) -> bytes:
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except FileNotFoundError:
                return b""
        return self._file.read(_CHUNK)

    def _wait(self) -> None:
        if select.select([self._control], [], [], _POLL_SECONDS)[0]:
            said = b""
            while chunk := os.read(self._control, _CHUNK):
                said += chunk
            word = said.decode(errors="replace").strip()
            self.status = cast("Status", word) if word in get_args(Status) else "killed"


def feed(tracker: Tracker, run: Path, config: dict[str, Any], control: int) -> None:
    """Gives ``tracker`` all that there is of ``run`` and all that comes, until ``control`` says how it ended."""
    tracker.start(config)
    log, step = Log(run / METRICS, control), 0
    for line in log:
        record = read_record(line, step=step)
        if record is not None:
            step = record.step
            tracker.log(record)
    assert log.status is not None
    for name in ARTIFACTS if log.status == "finished" else ():
        if (run / name).is_file():
            tracker.artifact(run / name)
    tracker.finish(log.status)


def _work(job: dict[str, Any], control: int) -> None:
    run = Path(job["run"])
    loaded = load_recipe(run / "recipe.yaml")
    entry = loaded.tables["trackers"][job["tracker"]["kind"]]
    options = entry.options.model_validate(job["tracker"], context={"tables": loaded.tables})
    config = json.loads(json.dumps(plain(loaded.recipe)))
    feed(builder(loaded.tables, "trackers", options)(options, Place(run, job["id"])), run, config, control)


def main() -> NoReturn:
    """Works; the last line of stderr says what went wrong. What the tracker wants to do at exit is not waited for."""
    control, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    job, code = json.loads(sys.argv[1]), DONE
    end_with(job["parent"])
    try:
        _work(job, control)
    except BaseException as error:  # whatever a tracker raises, SystemExit too
        message = " ".join(str(error).split())
        os.write(2, f"\n{type(error).__name__}: {message[:500]}\n".encode(errors="replace"))
        code = 1
    os._exit(code)


if __name__ == "__main__":
    main()
