"""Searching keys of a recipe: values are proposed, each proposal is a run, and hopeless runs end early.

What was tried stands in ``trials.json``, in the order in which it began. Proposals and pruning follow from that record
alone, so a search that was killed goes on as it would have gone.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from signal import SIGTERM
from typing import Any, cast

from manyhead.errors import CheckpointError
from manyhead.files import read_json, write_json, writing
from manyhead.recipe.keys import join_key, split_key
from manyhead.recipe.load import LoadedRecipe
from manyhead.recipe.overrides import Place
from manyhead.recipe.schema import Search, SearchRange
from manyhead.studies.folder import Outcome, StudyFolder
from manyhead.studies.plan import short_names, value_name
from manyhead.studies.planner import Planner, Setting
from manyhead.studies.proposals import Evaluations, Trial, distributions, is_hopeless, propose, score_of
from manyhead.studies.runner import POLL_SECONDS, Pool, Runner, stop_all
from manyhead.studies.runs import Member, Plan, PlannedRow, PlannedRun
from manyhead.training.run_folder import METRICS as RECORDS
from manyhead.training.signals import StopRequest, stop_on_signals

TRIALS = "trials.json"
_DIGITS = 3


class Searcher:
    """Runs the trials of one recipe's search."""

    def __init__(self, planner: Planner, path: Path, loaded: LoadedRecipe, folder: StudyFolder) -> None:
        assert loaded.recipe.search is not None
        self.search: Search = loaded.recipe.search
        self.trials: list[Trial] = _read_trials(folder.path / TRIALS)
        self._planner = planner
        self._path = path
        self._loaded = loaded
        self._folder = folder
        self._distributions = distributions(self.search)
        self._keys = {key: split_key(key) for key in self.search.keys}
        self._names = short_names(list(self._keys.values()))
        self._runs: dict[int, PlannedRun] = {}
        self._pruned: set[int] = set()
        self._evaluations: dict[int, Evaluations] = {}

    @property
    def plan(self) -> Plan:
        """The trials so far as rows: finished ones first, best score first."""
        ranked = sorted(self.trials, key=lambda trial: (trial.score is None, -(trial.score or 0.0), trial.number))
        ranked.sort(key=lambda trial: trial.status != "finished")
        return Plan(tuple(self._row(trial) for trial in ranked))

    def run(self, runner: Runner, lock: int) -> None:
        """Runs the trials that are left. Raises `StoppedError` where a signal stops them."""
        active: dict[str, Trial] = {}
        with (
            stop_on_signals(StopRequest(runner.tell, deferred=True)) as stop,
            Pool(self._folder, jobs=runner.jobs, lock=lock) as pool,
        ):
            while True:
                while pool.has_room and not stop and (trial := self._next(active)) is not None:
                    run = self._run_of(trial)
                    outcome = self._folder.outcome(run)
                    self._watch(trial)
                    if outcome is not None and outcome.status != "failed":
                        self._settle(runner, trial, outcome)
                    elif trial.number in self._pruned:
                        self._settle(runner, trial, Outcome("pruned"))
                    else:
                        runner.tell(f"trial {trial.number + 1} of {self.search.trials}: {self._label(trial)}")
                        active[run.digest] = trial
                        pool.start(run)
                if not active and not stop:
                    return
                for run, outcome in pool.ended():
                    trial = active.pop(run.digest)
                    self._watch(trial)
                    if not stop or trial.number in self._pruned or outcome.status != "failed":
                        self._settle(runner, trial, outcome)
                if stop:
                    stop_all(pool, stop)
                for trial in active.values():
                    if self._watch(trial):
                        pool.send(SIGTERM, self._run_of(trial))
                time.sleep(POLL_SECONDS)

    def _next(self, active: Mapping[str, Trial]) -> Trial | None:
        """A trial that was left half done, or a new one; None while there is none that can be started."""
        numbers = {trial.number for trial in active.values()}
        waiting = [trial for trial in self.trials if trial.status == "running" and trial.number not in numbers]
        if not waiting and len(self.trials) < self.search.trials:
            number = len(self.trials)
            values = propose(self.trials, self._distributions, seed=self._loaded.recipe.seed, number=number)
            waiting = [Trial(number, {key: self._value(key, given) for key, given in values.items()})]
            self.trials += waiting
            self._write()
        free = (trial for trial in waiting if self._run_of(trial).digest not in active)
        return next(free, None)

    def _watch(self, trial: Trial) -> bool:
        """Reads what the trial's run has scored since; says whether that has just made it hopeless."""
        if trial.number in self._pruned:
            return False
        if trial.number not in self._evaluations:
            path = self._folder.run_path(self._run_of(trial)) / RECORDS
            self._evaluations[trial.number] = Evaluations(path, self._loaded.recipe)
        for score in self._evaluations[trial.number].read()[len(trial.scores) :]:
            trial.scores.append(score)
            if self.search.pruning and self._is_hopeless(trial):
                self._pruned.add(trial.number)
                return True
        return False

    def _is_hopeless(self, trial: Trial) -> bool:
        return is_hopeless(self.trials, trial.scores, self._distributions, planned=self.search.trials)

    def _settle(self, runner: Runner, trial: Trial, outcome: Outcome) -> None:
        """Keeps how a trial ended."""
        run = self._run_of(trial)
        if trial.number in self._pruned:
            reason = f"dev score {trial.scores[-1]:.3f} after evaluation {len(trial.scores)}, below the median"
            outcome = Outcome("pruned", reason)
            self._folder.drop_weights(run, keep_model=False)
        summary = self._folder.summary(run)
        trial.status = outcome.status
        if outcome.status == "finished" and summary is not None:
            trial.score = self._score(summary)
        self._write()
        runner.finish(run, outcome)

    def _score(self, summary: Mapping[str, Any]) -> float | None:
        """What trials are ranked by: with ``select_on`` of rows that the table does not score."""
        if self._loaded.recipe.select_on is not None:
            return summary["best"]["score"]
        return score_of(summary["dev"] or {}, self._loaded.recipe)

    def _row(self, trial: Trial) -> PlannedRow:
        name = f"{trial.number + 1:0{len(str(self.search.trials))}} {self._label(trial)}"
        return PlannedRow(name, (Member(None, self._loaded.recipe.name, (self._run_of(trial),)),), {})

    def _run_of(self, trial: Trial) -> PlannedRun:
        if trial.number not in self._runs:
            settings = self._settings(trial.values)
            found = self._planner.load(self._path, settings)
            drafts = self._planner.drafts(found, f"trial-{trial.number + 1}", settings)
            self._runs[trial.number] = self._planner.runs(drafts)[0]
        return self._runs[trial.number]

    def _settings(self, values: Mapping[str, Any]) -> list[Setting]:
        return [
            (self._keys[key], value, Place(*self._loaded.place(join_key(("search", "keys", key)))))
            for key, value in values.items()
        ] + [(("search",), None, Place(None))]

    def _value(self, key: str, given: Any) -> Any:
        """What a proposal is for the recipe: choices are proposed as JSON texts."""
        return given if isinstance(self.search.keys[key], SearchRange) else json.loads(given)

    def _label(self, trial: Trial) -> str:
        return ", ".join(
            f"{self._names[self._keys[key]]}={value_name(value, _DIGITS)}" for key, value in trial.values.items()
        )

    def _write(self) -> None:
        path = self._folder.path / TRIALS
        with writing(str(path)):
            write_json(path, {"format": 1, "trials": [asdict(trial) for trial in self.trials]})


def _read_trials(path: Path) -> list[Trial]:
    if not path.exists():
        return []
    try:
        return [Trial(**each) for each in cast("list[dict[str, Any]]", read_json(path)["trials"])]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}; expected the trials of a search") from error
