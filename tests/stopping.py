"""Stopping a run in its middle, and what two equal runs share."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from manyhead.training.loop import StepRecord
from manyhead.training.observer import Observer


class StopAt(Observer):
    """Stops the run at its step ``left``, counted from 1, as a signal does."""

    def __init__(self, left: int) -> None:
        self.left = left

    def stepped(self, record: StepRecord) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def records_of(run: Path) -> list[dict[str, Any]]:
    """The records of a run's log without clock values and events."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines if line["kind"] != "event"]
