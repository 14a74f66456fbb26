"""What a tracker is, where its run is written, and the lines of metrics.jsonl as it is given them."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

Status = Literal["finished", "stopped", "diverged", "failed", "killed", "running"]
"""How a run ended; failed by an error of ours, killed without a word. Or that it goes on."""

TRACKERS_FOLDER = "trackers"


@dataclass(frozen=True)
class Record:
    """A line of metrics.jsonl: finite numbers by name, or the ``text`` of an event.

    ``step`` counts over all stages; an event has that of the record before it. ``at`` is in seconds since 1970.
    """

    kind: Literal["step", "eval", "event"]
    step: int
    at: float
    metrics: Mapping[str, float]
    text: str = ""


class Tracker(Protocol):
    """The four verbs, called in this order; ``log`` and ``artifact`` any number of times. Any of them may raise."""

    def start(self, config: Mapping[str, Any]) -> None:
        """A run begins. ``config`` is the resolved recipe."""
        ...

    def log(self, record: Record) -> None:
        """A step, an evaluation or an event; steps never fall."""
        ...

    def artifact(self, path: Path) -> None:
        """A file that the run ended with."""
        ...

    def finish(self, status: Status) -> None:
        """Nothing more comes, also of a run that goes on; everything has to be written when this returns."""
        ...


@dataclass(frozen=True)
class Place:
    """The run that is tracked: its folder and its id, which no other run has."""

    run: Path
    id: str

    @property
    def name(self) -> str:
        """What trackers call the run."""
        return self.run.name

    def new_folder(self, kind: str, folder: str | None) -> Path:
        """An empty folder for one tracker's run: in the run, or below ``folder`` under a name of its own.

        What the tracker wrote there before is removed: it is written anew.
        """
        own = Path(folder).expanduser() / f"{self.name}-{self.id[:8]}" if folder else self.run / TRACKERS_FOLDER / kind
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        return own.resolve()


def read_record(line: str, *, step: int) -> Record | None:
    """A line of metrics.jsonl, after one of ``step``; None for one that is no record."""
    try:
        found = json.loads(line)
        kind = found["kind"]
        at = datetime.fromisoformat(found["time"]["at"]).timestamp()
        if kind == "event":
            return Record("event", step, at, {}, str(found["text"]))
        return Record(kind, int(found["step"]), at, dict(_FLATTENED[kind](found)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings and lists as dotted keys, as ``--set`` writes them; empty ones stay values."""
    return dict(_flat("", config))


def _step(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    yield from _numbers("loss/", record["losses"])
    yield from _numbers("", {key: record.get(key) for key in ("lr", "grad_norm", "epoch", "tokens")})
    yield from _numbers("grad_norms/", record.get("grad_norms") or {})
    yield from _numbers("examples/", record["examples"])
    yield from _numbers("", {"seconds": record["time"]["seconds"]})
    tasks = list(record["losses"])
    for row, cosines in enumerate(record.get("cosines") or ()):
        yield from _numbers(f"cosine/{tasks[row]}/", dict(zip(tasks[row + 1 :], cosines[row + 1 :], strict=True)))


def _evaluation(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    split = record["split"]
    for task, scores in record["tasks"].items():
        yield from _numbers(f"{split}/{task}/", scores)
    yield from _numbers(f"{split}/", {key: record.get(key) for key in ("overall", "overall_raw")})
    yield from _numbers(f"{split}/", {"seconds": record["time"]["seconds"]})


_FLATTENED = {"step": _step, "eval": _evaluation}


def _numbers(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield prefix + name, value


def _flat(prefix: str, value: object) -> Iterator[tuple[str, Any]]:
    if value and isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), item)
    else:
        yield prefix, value
