"""What a search tries next and what it gives up, by optuna, as functions of the trials so far.

A proposal follows from the seed, the trial's number and the trials that have ended: the sampler is seeded anew for
each, and works on a study in memory that is made of them. So nothing of optuna has to be kept.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyhead.errors import UsageError
from manyhead.evaluation.metrics import METRICS, overall
from manyhead.recipe.schema import Recipe, Search, SearchRange

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study as OptunaStudy


@dataclass
class Trial:
    """One proposal. ``values`` by key of the search; ``scores`` of its evaluations so far; ``score`` at its end.

    ``status`` is as an `Outcome` has it, or ``running``.
    """

    number: int
    values: dict[str, Any]
    status: str = "running"
    score: float | None = None
    scores: list[float] = field(default_factory=list)


class Evaluations:
    """The dev scores in a run's records, read as they are written."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self._path = path
        self._recipe = recipe
        self._scores: list[float] = []
        self._read_bytes = 0
        self._last = b""

    def read(self) -> list[float]:
        """The score of each evaluation so far. A run that goes on cuts its records back, and repeats them."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_bytes - len(self._last))
                if file.read(len(self._last)) != self._last:
                    self._scores, self._read_bytes, self._last = [], 0, b""
                    file.seek(0)
                whole, end, _ = file.read().rpartition(b"\n")
        except OSError:
            return []
        lines = (whole + end).splitlines(keepends=True)
        self._read_bytes += len(whole + end)
        self._last = lines[-1] if lines else self._last
        for line in lines:
            record = json.loads(line) if b'"eval"' in line else {}
            score = score_of(record, self._recipe) if record.get("kind") == "eval" else None
            if score is not None:
                self._scores.append(score)
        return self._scores


def distributions(search: Search) -> "dict[str, BaseDistribution]":
    """Optuna's distribution of each key. Raises `UsageError` without optuna."""
    try:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    except ImportError as error:
        raise UsageError("a search needs optuna; run pip install 'manyhead[hpo]'") from error
    found: dict[str, BaseDistribution] = {}
    for key, given in search.keys.items():
        if not isinstance(given, SearchRange):
            found[key] = CategoricalDistribution([json.dumps(value) for value in given])
        elif given.integer:
            found[key] = IntDistribution(int(given.low), int(given.high), log=given.log)
        else:
            found[key] = FloatDistribution(given.low, given.high, log=given.log)
    return found


def propose(
    trials: Sequence[Trial], spaces: "Mapping[str, BaseDistribution]", *, seed: int, number: int
) -> dict[str, Any]:
    """The values of trial ``number``, by a tree-structured Parzen estimator over the trials that have ended."""
    from optuna.samplers import TPESampler

    key = hashlib.blake2b(f"search/{seed}/{number}".encode(), digest_size=4).digest()
    study = _study(trials, spaces)
    study.sampler = TPESampler(seed=int.from_bytes(key, "little"))
    return dict(study.ask(dict(spaces)).params)


def is_hopeless(
    trials: Sequence[Trial], scores: Sequence[float], spaces: "Mapping[str, BaseDistribution]", *, planned: int
) -> bool:
    """Whether a trial's best score so far is below the median of what finished trials had then (median pruner).

    None is before a quarter of the ``planned`` trials, or five of them, have finished.
    """
    from optuna.pruners import MedianPruner
    from optuna.trial import TrialState, create_trial

    trial = create_trial(state=TrialState.RUNNING, intermediate_values=dict(enumerate(scores)))
    return MedianPruner(n_startup_trials=min(5, max(1, planned // 4))).prune(_study(trials, spaces), trial)


def score_of(dev: Mapping[str, Any], recipe: Recipe) -> float | None:
    """What a search maximises: the dev score that the recipe's last stage selects by."""
    tasks: Mapping[str, Mapping[str, float]] = dev.get("tasks", {})
    select_by = recipe.stages[-1].select_by
    if select_by == "overall":
        trained = recipe.trained_tasks(recipe.stages[-1])
        scored = [task for task in tasks if task in trained] or list(tasks)
        return overall(tasks, {task: recipe.tasks[task].metric for task in scored})[0]
    task, _, metric = select_by.rpartition(".")
    value = tasks.get(task, {}).get(metric)
    return value if value is None or METRICS[metric].higher_is_better else -value


def _study(trials: Sequence[Trial], spaces: "Mapping[str, BaseDistribution]") -> "OptunaStudy":
    """The trials that have ended, as optuna knows them."""
    import optuna
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        if trial.status == "running":
            continue
        state = states.get(trial.status, TrialState.FAIL)
        if state == TrialState.COMPLETE and trial.score is None:
            state = TrialState.FAIL
        params = {
            key: json.dumps(value) if isinstance(spaces[key], CategoricalDistribution) else value
            for key, value in trial.values.items()
        }
        study.add_trial(
            create_trial(
                state=state,
                value=trial.score if state == TrialState.COMPLETE else None,
                params=params,
                distributions=dict(spaces),
                intermediate_values=dict(enumerate(trial.scores)),
            )
        )
    return study
