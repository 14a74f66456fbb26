"""What tests of trackers share: a tiny run with trackers, and what the witness among them wrote down."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from manyhead.build import Run, train
from manyhead.recipe.load import load_recipe
from manyhead.trackers.base import Status
from manyhead.training.observer import Observer
from tiny import tiny_recipe

PATIENCE_SECONDS = 120


class Told(Observer):
    """Remembers what a user is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def event(self, text: str) -> None:
        self.texts.append(text)


def recipe_with(encoder: Path, trackers: list[Any], **changes: Any) -> dict[str, Any]:
    return {**tiny_recipe(encoder, **changes), "plugins": ["odd_trackers"], "trackers": trackers}


def train_tiny(
    encoder: Path,
    out: Path,
    trackers: list[Any],
    observer: Observer | None = None,
    *,
    resume: bool = False,
    **changes: Any,
) -> Run:
    loaded = load_recipe(recipe_with(encoder, trackers, **changes))
    return train(loaded, out=out, observer=observer, resume=resume)


def calls(run: Path, kind: str = "witness") -> list[tuple[str, Any]]:
    path = run / "trackers" / kind / "calls.jsonl"
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def ended_calls(run: Path, *statuses: str) -> list[tuple[str, Any]]:
    """The witness's calls once the last of them is there: how the run ended, by one of ``statuses`` if given."""
    wait_until(lambda: dict(calls(run)).get("finish") in (statuses or get_args(Status)))
    return calls(run)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def expected_scalars(run: Path) -> dict[str, dict[int, float]]:
    """Every number of metrics.jsonl by name and step, spelled out once more."""
    found: dict[str, dict[int, float]] = {}
    for line in lines_of(run):
        if line["kind"] == "event":
            continue
        step = line["step"]
        if line["kind"] == "step":
            tasks = list(line["losses"])
            numbers = {f"loss/{task}": line["losses"][task] for task in tasks}
            numbers |= {f"examples/{task}": count for task, count in line["examples"].items()}
            numbers |= {key: line[key] for key in ("lr", "grad_norm", "epoch", "tokens")}
            numbers |= {f"grad_norms/{task}": norm for task, norm in line.get("grad_norms", {}).items()}
            numbers |= {
                f"cosine/{one}/{other}": line["cosines"][i][j]
                for i, one in enumerate(tasks if "cosines" in line else ())
                for j, other in enumerate(tasks)
                if i < j
            }
            numbers["seconds"] = line["time"]["seconds"]
        else:
            numbers = {f"dev/{task}/{name}": x for task, scores in line["tasks"].items() for name, x in scores.items()}
            numbers |= {f"dev/{name}": line[name] for name in ("overall", "overall_raw")}
            numbers["dev/seconds"] = line["time"]["seconds"]
        for name, value in numbers.items():
            if value is not None:
                found.setdefault(name, {})[step] = value
    return found
