"""The folder of a study: its runs, how each ended, its table, and who may work in it.

``runs/NAME`` are ordinary run folders, ``recipes/NAME.yaml`` what they were started with, ``logs/NAME.log`` what they
said, ``outcomes/NAME.json`` how those ended that did not finish. ``beginnings/NAME`` are runs that others begin with,
as long as they are needed.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from manyhead.errors import CheckpointError, UsageError
from manyhead.files import read_json, write_json, write_text, writing
from manyhead.recipe.load import recipe_yaml
from manyhead.studies.prefix import begin_from, is_complete
from manyhead.studies.runs import PlannedRun
from manyhead.training.run_folder import BEST, CHECKPOINTS, MODEL, STATE, SUMMARY

Status = Literal["finished", "diverged", "failed", "pruned"]

_STUDY = "study.json"
_LOCK = ".lock"
_RUNS_LOCK = ".runs.lock"
_WAIT_SECONDS = 600.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Outcome:
    """How a run ended. ``reason`` is one line, None for a finished run."""

    status: Status
    reason: str | None = None


class StudyFolder:
    """A study on disk. Open one with `open_study`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs = path / "runs"
        self.log_folder = path / "logs"
        self._beginnings = path / "beginnings"
        self._recipes = path / "recipes"
        self._outcomes = path / "outcomes"

    def run_path(self, run: PlannedRun) -> Path:
        """The run's folder: one of this digest that is there already, whatever row it was named by, or a new one."""
        place = self.runs if run.until is None else self._beginnings
        return next(iter(sorted(place.glob(f"*-{run.digest}"))), place / run.name)

    def begin(self, run: PlannedRun) -> None:
        """Lets a run that is not there yet begin where the one that it begins with has ended, if it has."""
        before = run.begins_with
        if before is not None and not self.run_path(run).exists() and self.is_finished(before):
            begin_from(self.run_path(before), self.run_path(run), run.recipe)

    def log_path(self, run: PlannedRun) -> Path:
        """What the run says."""
        return self.log_folder / f"{self.run_path(run).name}.log"

    def write_recipe(self, run: PlannedRun) -> Path:
        """The recipe that the run is started with."""
        name = self.run_path(run).name
        path = self._recipes / f"{name}.yaml"
        with writing(str(path)):
            write_text(path, recipe_yaml(run.recipe.with_changes(name=name)))
        return path

    def outcome(self, run: PlannedRun) -> Outcome | None:
        """How the run ended; None where it has not been started or can go on."""
        path = self.run_path(run)
        if self.is_finished(run):
            return Outcome("finished")
        try:
            return Outcome(**read_json(self._outcomes / f"{path.name}.json"))
        except (CheckpointError, TypeError):
            return None

    def record(self, run: PlannedRun, outcome: Outcome) -> None:
        """Keeps how a run ended."""
        path = self._outcomes / f"{self.run_path(run).name}.json"
        with writing(str(path)):
            if outcome.status == "finished":
                path.unlink(missing_ok=True)
            else:
                write_json(path, asdict(outcome))

    def is_finished(self, run: PlannedRun) -> bool:
        """Whether all stages of the run are trained that are to be."""
        return self.summary(run) is not None if run.until is None else is_complete(self.run_path(run), run.until)

    def summary(self, run: PlannedRun) -> Mapping[str, Any] | None:
        """summary.json of a finished run, else None."""
        path = self.run_path(run)
        try:
            is_finished = read_json(path / STATE)["status"] == "finished"
            return read_json(path / SUMMARY) if is_finished else None
        except (CheckpointError, KeyError, TypeError):
            return None

    def state(self, run: PlannedRun) -> Mapping[str, Any]:
        """state.json of a run."""
        return read_json(self.run_path(run) / STATE)

    def drop_weights(self, run: PlannedRun, *, keep_model: bool) -> None:
        """Removes a finished run's checkpoints and, unless it is to be kept, its model."""
        path = self.run_path(run)
        (path / BEST).unlink(missing_ok=True)
        for name in (CHECKPOINTS,) if keep_model else (CHECKPOINTS, MODEL):
            shutil.rmtree(path / name, ignore_errors=True)

    def remove(self, beginning: PlannedRun) -> None:
        """Removes a run that others have begun with."""
        shutil.rmtree(self.run_path(beginning), ignore_errors=True)

    def remove_beginnings(self) -> None:
        """Removes all runs that others began with, since none is left that could."""
        for path in self._beginnings.iterdir():
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def locked(self, tell: Callable[[str], None]) -> Generator[int]:
        """Holds the study for this process, and gives the descriptor of a lock that its runs are to inherit.

        So whoever comes after a process that was killed waits until the runs that it left behind have saved and
        ended. Raises `UsageError` where another process works on this study.
        """
        with _lock(self.path / _LOCK) as own, _lock(self.path / _RUNS_LOCK) as shared:
            if not _try(own):
                raise UsageError(f"{self.path}: another process works on this study; wait for it or stop it")
            self._wait_for_runs(shared, tell)
            self._remove_leftovers()
            yield shared

    def _wait_for_runs(self, handle: int, tell: Callable[[str], None]) -> None:
        until = time.monotonic() + _WAIT_SECONDS
        told = False
        while not _try(handle):
            if not told:
                tell("waiting for the runs of a process that was killed to save and end ...")
            told = True
            if time.monotonic() > until:
                raise UsageError(f"{self.path}: runs of a process that was killed are still there; end them")
            time.sleep(_POLL_SECONDS)

    def _remove_leftovers(self) -> None:
        for folder in (self.path, self.runs, self._beginnings, self._recipes, self._outcomes):
            for path in folder.glob(".tmp-*"):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def open_study(path: Path, name: str, budget: str) -> StudyFolder:
    """The study's folder, made where there is none. Raises `UsageError` where ``path`` holds something else."""
    about = {"format": 1, "study": name, "budget": budget}
    with suppress(CheckpointError):
        found = read_json(path / _STUDY)
        if found != about:
            raise UsageError(
                f"{path}: holds study '{found.get('study')}' with budget {found.get('budget')}; expected "
                f"'{name}' with {budget}; choose another folder by --out"
            )
        return StudyFolder(path)
    with suppress(OSError):
        if next(path.iterdir(), None) is not None:
            raise UsageError(f"{path}: is not empty and holds no study; choose another folder by --out")
    folder = StudyFolder(path)
    with writing(str(path)):
        for each in ("runs", "beginnings", "recipes", "logs", "outcomes"):
            (path / each).mkdir(parents=True, exist_ok=True)
        write_json(path / _STUDY, about)
    return folder


@contextmanager
def _lock(path: Path) -> Generator[int]:
    with writing(str(path)):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
