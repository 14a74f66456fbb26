"""A run of a study, in a process of its own: ``python -m manyhead.studies.worker RECIPE RUN [UNTIL]``.

Standard input is a pipe that the study holds open and never writes to: its end says that the study is gone, and the
run then stops as if it had been asked to. Standard output is one JSON object: how the run ended. All else goes to
standard error, which is the run's log.
"""

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path


def main(recipe: str, run: str, until: str | None = None) -> int:
    """Trains, or goes on with, ``recipe`` in the folder ``run``, before stage ``until``; returns the exit code."""
    threading.Thread(target=_stop_with_the_study, daemon=True).start()
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from manyhead.studies.one_run import train_one

    outcome, code = train_one(Path(recipe), Path(run), None if until is None else int(until))
    with suppress(BrokenPipeError), answer:  # the study may be gone
        json.dump(asdict(outcome), answer)
    return code


def _stop_with_the_study() -> None:
    while os.read(0, 1):  # not sys.stdin: a thread that waits in it keeps Python from ending
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
