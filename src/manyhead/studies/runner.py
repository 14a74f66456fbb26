"""Running what is left of a study's runs, so many at a time, each in a process of its own.

A run that diverges, fails, runs out of memory or is killed ends alone. A signal to the study is passed on to its runs
once; they save and end, and the study says how to go on.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from signal import Signals
from typing import IO, Any, Self

from manyhead.errors import StoppedError
from manyhead.files import writing
from manyhead.studies.folder import Outcome, StudyFolder
from manyhead.studies.prefix import with_prefixes
from manyhead.studies.runs import PlannedRun
from manyhead.training.signals import StopRequest, stop_on_signals

POLL_SECONDS = 0.05

_WORKER = "manyhead.studies.worker"


class Child:
    """The process of a run. ``lock`` is a descriptor that it holds open as long as it lives."""

    def __init__(self, recipe: Path, run: Path, log: Path, lock: int, until: int | None) -> None:
        self._log_path = log
        with writing(str(log)):
            self._log: IO[bytes] = log.open("ab")
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter and our own module
            [sys.executable, "-P", "-m", _WORKER, str(recipe), str(run), *([] if until is None else [str(until)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
            pass_fds=(lock,),
            start_new_session=True,  # a terminal's Ctrl-C reaches the study alone, which passes it on
        )

    def ended(self) -> Outcome | None:
        """How the run ended; None while it goes on."""
        code = self._process.poll()
        if code is None:
            return None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._process.stdin, self._process.stdout as answer, self._log:
            try:
                return Outcome(**json.loads(answer.read()))
            except (ValueError, TypeError):
                return Outcome("failed", self._broken(code))

    def send(self, signal_number: int) -> None:
        """Passes a signal on."""
        if self._process.poll() is None:
            self._process.send_signal(signal_number)

    def _broken(self, code: int) -> str:
        if code < 0:
            hint = ": out of memory?" if -code == Signals.SIGKILL else ""
            return f"ended by {Signals(-code).name}{hint}"
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")
        return f"ended with {code}: {last}; see {self._log_path}"


class Pool:
    """Up to ``jobs`` runs at a time; the cores are shared among them."""

    def __init__(self, folder: StudyFolder, *, jobs: int, lock: int) -> None:
        self.folder = folder
        self.jobs = jobs
        self._lock = lock
        self._threads = max(1, _cores() // jobs) if jobs > 1 else None
        self._children: dict[str, tuple[PlannedRun, Child]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.send(Signals.SIGTERM)
        self.wait()

    @property
    def has_room(self) -> bool:
        """Whether another run can be started."""
        return len(self._children) < self.jobs

    @property
    def running(self) -> list[PlannedRun]:
        """The runs that go on."""
        return [run for run, _ in self._children.values()]

    def start(self, run: PlannedRun) -> None:
        """Starts a run, or goes on with it."""
        self.folder.begin(run)
        recipe = self.folder.write_recipe(_with_threads(run, self._threads))
        child = Child(recipe, self.folder.run_path(run), self.folder.log_path(run), self._lock, run.until)
        self._children[run.digest] = run, child

    def ended(self) -> list[tuple[PlannedRun, Outcome]]:
        """The runs that have ended since this was last asked."""
        found = [(run, outcome) for run, child in self._children.values() if (outcome := child.ended()) is not None]
        for run, _ in found:
            del self._children[run.digest]
        return found

    def send(self, signal_number: int, run: PlannedRun | None = None) -> None:
        """Passes a signal on to one run, or to all."""
        for digest, (_, child) in self._children.items():
            if run is None or run.digest == digest:
                child.send(signal_number)

    def wait(self) -> None:
        """Waits until all have ended, however they do."""
        while self._children:
            self.ended()
            time.sleep(POLL_SECONDS)


class Runner:
    """Runs a study's runs. ``ended`` is called after each that has ended, ``tell`` is given lines for the user."""

    def __init__(
        self,
        folder: StudyFolder,
        *,
        jobs: int,
        keep_models: bool,
        tell: Callable[[str], None],
        ended: Callable[[], object],
    ) -> None:
        self.folder = folder
        self.jobs = jobs
        self.keep_models = keep_models
        self.tell = tell
        self.ended = ended

    def run(self, runs: Sequence[PlannedRun], lock: int) -> None:
        """Runs those of ``runs`` that have not ended. Raises `StoppedError` where a signal stops them."""
        left = self._left(runs)
        done = len(runs) - sum(run.until is None for run in left)
        if done:
            self.tell(f"{done} of {len(runs)} runs are done already")
        queue = [run for run in left if run.until is None or not self.folder.is_finished(run)]
        with (
            stop_on_signals(StopRequest(self.tell, deferred=True)) as stop,
            Pool(self.folder, jobs=self.jobs, lock=lock) as pool,
        ):
            while queue or pool.running:
                while pool.has_room and not stop and (run := self._next(queue, pool)) is not None:
                    queue.remove(run)
                    done += run.until is None
                    diverged = self._diverged_before(run)
                    if diverged is not None:
                        self.finish(run, diverged)
                        continue
                    which = f"run {done} of {len(runs)}" if run.until is None else "stages that runs begin with"
                    self.tell(f"{which}: {self.folder.run_path(run).name}")
                    pool.start(run)
                    self._remove_used(left)
                for run, outcome in pool.ended():
                    self.finish(run, outcome)
                if stop:
                    stop_all(pool, stop)
                time.sleep(POLL_SECONDS)
        self.folder.remove_beginnings()

    def finish(self, run: PlannedRun, outcome: Outcome) -> None:
        """Keeps how a run ended, and what is to be kept of it."""
        self.folder.record(run, outcome)
        said = outcome.reason
        if outcome.status == "finished" and run.until is None:
            said = _scored(self.folder.summary(run) or {})
            self.folder.drop_weights(run, keep_model=self.keep_models)
        if said is not None:
            self.tell(f"{self.folder.run_path(run).name} {outcome.status}: {said}")
        self.ended()

    def _left(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """What has to be run, with what several runs begin with."""
        left = [run for run in runs if not self._is_done(run)]
        begun = [run for run in left if self.folder.run_path(run).exists()]
        known = {run.digest for run in begun}
        fresh = [run for run in left if run.digest not in known]
        return begun + with_prefixes(fresh, lambda run: self.folder.run_path(run).exists())

    def _next(self, queue: Sequence[PlannedRun], pool: Pool) -> PlannedRun | None:
        """The first run that can be started: what it begins with has ended."""
        waiting = {run.digest for run in (*queue, *pool.running)}
        ready = (run for run in queue if run.begins_with is None or run.begins_with.digest not in waiting)
        return next(ready, None)

    def _diverged_before(self, run: PlannedRun) -> Outcome | None:
        """How the run ends that begins with one that diverged: so does it."""
        before = None if run.begins_with is None else self.folder.outcome(run.begins_with)
        return before if before is not None and before.status == "diverged" else None

    def _remove_used(self, left: Sequence[PlannedRun]) -> None:
        """Removes beginnings that all runs which needed them have begun with."""
        for beginning in left:
            needing = [run for run in left if run.begins_with and run.begins_with.digest == beginning.digest]
            if needing and all(self.folder.run_path(run).exists() for run in needing):
                self.folder.remove(beginning)

    def _is_done(self, run: PlannedRun) -> bool:
        """Whether nothing is left to do: what failed is tried again, what diverged would diverge again."""
        outcome = self.folder.outcome(run)
        if outcome is not None and outcome.status == "finished":
            self.folder.drop_weights(run, keep_model=self.keep_models)
        return outcome is not None and outcome.status != "failed"


def stop_all(pool: Pool, stop: StopRequest) -> None:
    """Passes the signal on, waits until all runs have saved and ended, and raises `StoppedError`."""
    assert stop.signal_number is not None
    pool.send(stop.signal_number)
    pool.wait()
    raise StoppedError(f"stopped; the study in {pool.folder.path} can go on", stop.signal_number)


def _scored(summary: Mapping[str, Any]) -> str | None:
    """What a finished run comes to, in a few words."""
    if not summary:
        return None
    overall = summary.get("overall")
    return f"{summary['seconds']:.0f} s" + ("" if overall is None else f", overall {overall:.3f}")


def _with_threads(run: PlannedRun, threads: int | None) -> PlannedRun:
    """The run with so many threads, where its recipe leaves them open."""
    if threads is None or run.recipe.threads is not None:
        return run
    return replace(run, recipe=run.recipe.with_changes(threads=threads))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
