"""A plugin: a tracker that writes down what it is given, and trackers that misbehave in every way."""

import ctypes
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from manyhead.recipe.schema import Entry
from manyhead.trackers import TrackerOptions
from manyhead.trackers.base import Place, Record, Status

Kind = Literal[
    "witness",
    "raises_at_build",
    "raises_at_start",
    "raises_at_log",
    "raises_at_artifact",
    "raises_at_finish",
    "hangs",
    "hangs_with_the_lock",
    "exits",
    "segfaults",
    "floods",
    "prints",
    "signals",
]


class Odd(TrackerOptions):
    kind: Kind


def build(options: Odd, place: Place) -> "_Witness":
    folder = place.new_folder(options.kind, options.folder)
    if options.kind == "raises_at_build":
        raise RuntimeError("no store")
    return _Witness(folder) if options.kind == "witness" else _Odd(options.kind, folder)


MEMBERS = {"trackers": {kind: Entry(Odd, "odd_trackers:build") for kind in get_args(Kind)}}


class _Witness:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "calls.jsonl"
        self._write("pids", [os.getpid(), os.getppid()])

    def start(self, config: Mapping[str, Any]) -> None:
        self._write("start", config)

    def log(self, record: Record) -> None:
        self._write("log", {"kind": record.kind, "step": record.step, "metrics": record.metrics, "text": record.text})

    def artifact(self, path: Path) -> None:
        self._write("artifact", path.name)

    def finish(self, status: Status) -> None:
        self._write("finish", status)

    def _write(self, verb: str, value: object) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([verb, value]) + "\n")


class _Odd(_Witness):
    def __init__(self, kind: Kind, folder: Path) -> None:
        super().__init__(folder)
        self._kind = kind

    def _write(self, verb: str, value: object) -> None:
        super()._write(verb, value)
        if hasattr(self, "_kind"):
            self._misbehave(verb)

    def _misbehave(self, verb: str) -> None:
        if self._kind == f"raises_at_{verb}":
            raise RuntimeError(f"no\n{verb}")
        if verb == "log":
            _AT_LOG.get(self._kind, lambda: None)()


def _hang() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(1)


def _flood() -> None:
    while True:
        os.write(2, b"a line that is printed without end\n" * 1000)


def _print() -> None:
    print("{not json", flush=True)
    os.write(1, b"}}}\n")


_AT_LOG = {
    "hangs": _hang,
    "hangs_with_the_lock": lambda: ctypes.PyDLL(None).sleep(1000),
    "exits": lambda: os._exit(0),
    "segfaults": lambda: ctypes.string_at(0),
    "floods": _flood,
    "prints": _print,
    "signals": lambda: os.kill(0, signal.SIGTERM),
}
