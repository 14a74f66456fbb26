"""Writing a run that was trained, or is being trained, into a tracker."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyhead.errors import RecipeError, StoppedError, UsageError, WriteError
from manyhead.recipe.load import load_recipe
from manyhead.recipe.overrides import Place
from manyhead.recipe.schema import Options
from manyhead.recipe.yaml_text import parse_value
from manyhead.trackers.base import Status, read_record
from manyhead.tracking.jobs import kill, problem, start
from manyhead.tracking.run import missing_packages
from manyhead.training.run_folder import METRICS, RECIPE, RunFolder, open_run
from manyhead.training.signals import Interruption, StopRequest, stop_on_signals

_ENDED: tuple[Status, ...] = ("finished", "stopped", "diverged")
"""What a run's state may say of its end."""


@dataclass(frozen=True)
class Tracked:
    """What a tracker was given: so many ``records`` of a run, and how that ended, or that it is running."""

    run: Path
    tracker: str
    status: Status
    records: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"run": str(self.run), "tracker": self.tracker, "status": self.status, "records": self.records}


def track_run(run: Path, to: str) -> Tracked:
    """Writes all that metrics.jsonl of ``run`` holds into the tracker ``to``, in place of what that had of the run.

    ``to`` is a kind or ``{kind: ..., ...}``, as recipes have it. A kind alone has the options of the run's own recipe,
    where that names it. Raises `CheckpointError` where there is no run, `RecipeError` for a tracker that is none or is
    not installed, `UsageError` where the run is writing it just now, `WriteError` where the tracker fails, and
    `StoppedError` where a signal ends it.
    """
    folder = open_run(run)
    options = _options(run, to)
    # Asked before its state: a run that ends in between says itself how.
    is_trained = folder.is_locked()
    if is_trained:
        _check_free(folder, options)
    status = _status(folder, is_trained=is_trained)
    job = {"run": str(run.resolve()), "id": folder.id, "tracker": options.model_dump(by_alias=True)}
    stop = StopRequest()
    try:
        with stop_on_signals(stop):
            failed = _feed(job, status)
    except Interruption:
        assert stop.signal_number is not None
        left = f"{options.kind} may have a part of {run} only; the same command writes it anew"
        raise StoppedError(f"stopped; {left}", stop.signal_number) from None
    if failed is not None:
        raise WriteError(f"tracker {options.kind}: {failed}; expected it to take {run / METRICS}; see its own manual")
    return Tracked(run, options.kind, status, _count(run / METRICS))


def _status(folder: RunFolder, *, is_trained: bool) -> Status:
    """How a run ended. One that does not say it goes on where a process has it, and was killed where none has."""
    said = folder.read_state()["status"]
    return said if said in _ENDED else "running" if is_trained else "killed"


def _feed(job: Mapping[str, Any], status: Status) -> str | None:
    """Runs a tracker's process to its end; what went wrong in it. It has a session of its own, and ends with this."""
    process = start("worker", job, stderr=subprocess.STDOUT)
    try:
        output, _ = process.communicate(status.encode())
    except BaseException:
        kill(process)
        process.wait()
        raise
    return problem(process.returncode, output)


def _options(run: Path, to: str) -> Options:
    own = {options.kind: options for options in load_recipe(run / RECIPE).recipe.trackers}
    value = own[to].model_dump(by_alias=True) if to in own else parse_value(to)
    loaded = load_recipe(run / RECIPE, settings=[(("trackers",), [value], Place("--to"))])
    problems = list(missing_packages(loaded.recipe))
    if problems:
        raise RecipeError(problems)
    return loaded.recipe.trackers[0]


def _check_free(folder: RunFolder, options: Options) -> None:
    """Raises `UsageError` for a tracker that ``folder``, which is being trained, writes itself."""
    own = load_recipe(folder.path / RECIPE).recipe.trackers
    if any(options.kind == each.kind for each in own):
        raise UsageError(f"{folder.path}: is being trained and writes {options.kind} itself; wait for it, or stop it")


def _count(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        return sum(read_record(line, step=0) is not None for line in lines)
