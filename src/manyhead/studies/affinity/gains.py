"""What training with others did for each task, out of runs that differ in the tasks they train and in nothing else."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from manyhead.errors import CheckpointError, UsageError
from manyhead.evaluation.metrics import METRICS
from manyhead.evaluation.scored import Scored
from manyhead.evidence.predictions import read_predictions
from manyhead.files import read_json
from manyhead.recipe.schema import Recipe
from manyhead.recipe.stored import load_stored_recipe
from manyhead.studies.affinity.estimates import Array, bounds
from manyhead.training.run_folder import RECIPE, STATE

RESAMPLES = 1000

_MAY_DIFFER = ("name", "seed", "data_dir", "device", "threads")


@dataclass(frozen=True)
class SubsetRun:
    """A finished run, and the tasks that it trained."""

    path: Path
    tasks: frozenset[str]
    recipe: Recipe


@dataclass(frozen=True)
class Gain:
    """What a task gained by being trained with ``partners``: its score with them less its score alone.

    Scores are of the task's own metric, means over ``seeds``; a gain is positive where partners helped. ``samples``
    (R,) are the gain of resampled dev rows and, where there are several, seeds.
    """

    task: str
    partners: tuple[str, ...]
    metric: str
    alone: float
    together: float
    seeds: int
    samples: Array

    @property
    def value(self) -> float:
        """The gain."""
        return (self.together - self.alone) * (1 if METRICS[self.metric].higher_is_better else -1)

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        low, high = bounds(self.samples)
        return float(low), float(high)


@dataclass(frozen=True)
class Gains:
    """All gains that runs allow, in the order of tasks and of the number of partners, and what else the runs say.

    ``differences``: keys of the recipes, other than the tasks and the seed, in which the runs differ.
    """

    tasks: tuple[str, ...]
    gains: Sequence[Gain]
    differences: Sequence[str]


def measure_gains(study: Path, plugins: Sequence[str] = (), *, resamples: int = RESAMPLES, seed: int = 0) -> Gains:
    """The gains of the finished runs in the folder of a study, or in any folder of run folders.

    Raises `UsageError` where no task was trained both alone and with others, where two runs train the same tasks with
    the same seed, or where runs scored other dev rows; `CheckpointError` where a run cannot be read.
    """
    runs = read_subset_runs(study, plugins)
    trained = frozenset[str]().union(*(run.tasks for run in runs))
    names = list(dict.fromkeys(name for run in runs for name in run.recipe.tasks if name in trained))
    by_set: dict[frozenset[str], dict[int, SubsetRun]] = {}
    for run in runs:
        seeds = by_set.setdefault(run.tasks, {})
        other = seeds.setdefault(run.recipe.seed, run)
        if other is not run:
            raise UsageError(
                f"{other.path} and {run.path} train the same tasks with the same seed; expected runs that differ in "
                "the tasks they train; name a folder with such runs only"
            )
    order = sorted(by_set, key=lambda tasks: (len(tasks), [names.index(name) for name in _ordered(tasks, names)]))
    generator = np.random.default_rng(seed)
    gains: list[Gain] = []
    for name in names:
        alone = by_set.get(frozenset({name}), {})
        with_others = {tasks: by_set[tasks] for tasks in order if name in tasks and len(tasks) > 1}
        if alone and with_others:
            gains += _task_gains(name, names, alone, with_others, resamples=resamples, generator=generator)
    if not gains:
        raise UsageError(
            f"{study}: no task was trained both alone and with others; expected finished runs of both; "
            "run a study such as subsets"
        )
    return Gains(tuple(names), gains, _differences(runs))


def read_subset_runs(study: Path, plugins: Sequence[str] = ()) -> list[SubsetRun]:
    """The finished runs below ``study``. Raises `UsageError` where there are none."""
    place = study / "runs" if (study / "runs").is_dir() else study
    found = [path for path in sorted(place.glob("*")) if _is_finished(path)]
    if not found:
        raise UsageError(f"{study}: holds no finished run; expected the folder of a study; run it by manyhead study")
    runs: list[SubsetRun] = []
    for path in found:
        recipe = load_stored_recipe(path / RECIPE, plugins=plugins).recipe
        stages = [stage for stage in recipe.stages if stage.pretraining is None]
        runs.append(SubsetRun(path, frozenset(name for each in stages for name in recipe.trained_tasks(each)), recipe))
    return runs


def _is_finished(path: Path) -> bool:
    try:
        return read_json(path / STATE)["status"] == "finished"
    except (CheckpointError, KeyError, TypeError):
        return False


def _task_gains(
    name: str,
    names: Sequence[str],
    alone: Mapping[int, SubsetRun],
    with_others: Mapping[frozenset[str], Mapping[int, SubsetRun]],
    *,
    resamples: int,
    generator: np.random.Generator,
) -> Iterator[Gain]:
    """All gains of one task, by the same resamples of its dev rows."""
    scored = {run.path: _scored(run, name) for runs in (alone, *with_others.values()) for run in runs.values()}
    first_path, first = next(iter(scored.items()))
    for path, each in scored.items():
        if list(each.ids) != list(first.ids) or not np.array_equal(each.targets, first.targets):
            raise UsageError(
                f"{path} and {first_path} scored other dev rows of {name}; expected the same rows and targets; "
                "train both on the same data"
            )
    draws = generator.integers(0, first.n, (resamples, first.n))
    metric = METRICS[first.metric]
    extra = (first.range,) if metric.takes_range and first.range is not None else ()

    def score(each: Scored, rows: NDArray[np.int64]) -> float:
        return metric.function(each.values[rows], each.targets[rows], *extra)

    every = np.arange(first.n)
    values = {path: score(each, every) for path, each in scored.items()}
    samples = {path: np.array([score(each, rows) for rows in draws]) for path, each in scored.items()}
    sign = 1 if metric.higher_is_better else -1
    for tasks, runs in with_others.items():
        seeds = sorted(alone.keys() & runs.keys())
        if not seeds:
            continue
        pairs = [(alone[seed].path, runs[seed].path) for seed in seeds]
        drawn = generator.integers(0, len(seeds), (resamples, len(seeds)))
        differences = sign * np.stack([samples[two] - samples[one] for one, two in pairs])
        yield Gain(
            task=name,
            partners=tuple(each for each in _ordered(tasks, names) if each != name),
            metric=first.metric,
            alone=float(np.mean([values[one] for one, _ in pairs])),
            together=float(np.mean([values[two] for _, two in pairs])),
            seeds=len(seeds),
            samples=np.take_along_axis(differences.T, drawn, axis=1).mean(1),
        )


def _scored(run: SubsetRun, name: str) -> Scored:
    return read_predictions(run.path, name, run.recipe.tasks[name])


def _ordered(tasks: frozenset[str], names: Sequence[str]) -> list[str]:
    return [name for name in names if name in tasks]


def _differences(runs: Sequence[SubsetRun]) -> list[str]:
    """Keys that are not the same in all recipes, less those that may differ; those of a task, in runs that train it."""
    flat = [dict(_flat(run.recipe.model_dump(mode="json", exclude={*_MAY_DIFFER}))) for run in runs]
    tasks = frozenset[str]().union(*(run.tasks for run in runs), *(run.recipe.tasks for run in runs))
    differing: list[str] = []
    for key in dict.fromkeys(key for each in flat for key in each):
        of = tasks.intersection(key.split("."))
        found = [each.get(key) for run, each in zip(runs, flat, strict=True) if of <= run.tasks]
        if any(value != found[0] for value in found):
            differing.append(key)
    return [key for key in differing if not re.match(r"stages\.\d+\.tasks\b", key)]


def _flat(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Every value below ``value``, by its dotted key."""
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
    elif isinstance(value, list):
        items = ((str(place), item) for place, item in enumerate(cast("list[object]", value)))
    else:
        yield key, value
        return
    for name, item in items:
        yield from _flat(item, f"{key}.{name}".lstrip("."))
