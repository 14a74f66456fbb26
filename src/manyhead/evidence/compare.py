"""Runs compared: which are runs of one recipe, whether they can be compared at all, and what the comparison says."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyhead.errors import UsageError
from manyhead.evaluation.statistics.comparison import Comparison, compare_sides
from manyhead.evaluation.statistics.intervals import LEVEL, RESAMPLES
from manyhead.evidence.runs import FinishedRun, read_runs
from manyhead.recipe.schema import PLACEMENT


@dataclass(frozen=True)
class Side:
    """Runs of one recipe, under the name that tables call them by."""

    name: str
    runs: tuple[FinishedRun, ...]


@dataclass(frozen=True)
class RunsComparison:
    """The first side against each of the others.

    Attributes:
        sides: The first is what the others are compared with.
        comparisons: One for each other side.
        selected: Whether the checkpoints were picked on the rows that are scored, which makes scores too good.
    """

    sides: list[Side]
    comparisons: list[Comparison]
    selected: bool

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``manyhead compare``."""
        return {
            "baseline": self.sides[0].name,
            "sides": [
                {
                    "name": side.name,
                    "runs": [str(run.path) for run in side.runs],
                    "seeds": [run.recipe.seed for run in side.runs],
                }
                for side in self.sides
            ],
            "selected_on_these_rows": self.selected,
            "comparisons": [each.as_dict() for each in self.comparisons],
        }


def compare_runs(
    paths: Sequence[Path],
    *,
    plugins: Sequence[str] = (),
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> RunsComparison:
    """Compares the first run, or the runs of its recipe, with the others.

    Args:
        paths: Run folders. Runs whose recipes differ in name and seed alone are one side, unless all are.
        plugins: Modules that the recipes need and that may be loaded.
        resamples: Number of bootstrap samples, and of permutations.
        level: Confidence of intervals; 1 less this is the level of tests.
        seed: What is drawn depends on it and the tasks' names alone.

    Raises:
        CheckpointError: Some are no finished runs with predictions.
        UsageError: Fewer than two, or they were not scored on the same rows with the same targets.
    """
    if len(paths) < 2:
        raise UsageError(f"{len(paths)} run; expected at least two to compare; name another")
    return compare_finished(read_runs(paths, plugins=plugins), resamples=resamples, level=level, seed=seed)


def compare_finished(
    runs: Sequence[FinishedRun], *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> RunsComparison:
    """`compare_runs` of runs that were read, of which there are at least two."""
    problems = [*_repeated(runs), *differences(runs)]
    if problems:
        raise UsageError("\n".join(problems))
    sides = sides_of(runs)
    first, *others = sides
    comparisons = [
        compare_sides(
            [run.dev for run in first.runs],
            [run.dev for run in other.runs],
            names=(first.name, other.name),
            resamples=resamples,
            level=level,
            seed=seed,
        )
        for other in others
    ]
    for other, found in zip(others, comparisons, strict=True):
        if not found.tasks:
            raise UsageError(f"{first.name} and {other.name} have no task in common; expected one that both have")
    return RunsComparison(sides, comparisons, any(run.recipe.select_on is None for run in runs))


def sides_of(runs: Sequence[FinishedRun]) -> list[Side]:
    """Runs by recipe, in the order that they were named. Raises `UsageError` where one seed stands twice in a side."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(_recipe_key(run), []).append(run)
    if len(groups) == 1:
        groups = {str(place): [run] for place, run in enumerate(runs)}
    problems: list[str] = []
    for group in groups.values():
        by_seed: dict[int, FinishedRun] = {}
        for run in group:
            if run.recipe.seed in by_seed:
                problems.append(
                    f"{run.path}: the same recipe and seed ({run.recipe.seed}) as {by_seed[run.recipe.seed].path}; "
                    "expected another seed, which alone tells something new; leave one out"
                )
            by_seed.setdefault(run.recipe.seed, run)
    if problems:
        raise UsageError("\n".join(problems))
    found = [tuple(group) for group in groups.values()]
    return [Side(name, group) for name, group in zip(_names(found), found, strict=True)]


def differences(runs: Sequence[FinishedRun]) -> list[str]:
    """What keeps runs from being compared, in words: other rows, targets, classes or metrics of a task."""
    problems: list[str] = []
    for name in dict.fromkeys(name for run in runs for name in run.dev):
        having = [run for run in runs if name in run.dev]
        first = having[0]
        for run in having[1:]:
            found = _difference(first, run, name)
            if found is not None:
                problems.append(
                    f"{run.path}: {name}: {found}; expected dev rows, targets and metric as in {first.path}; "
                    "compare runs of the same data"
                )
    return problems


def _difference(first: FinishedRun, run: FinishedRun, name: str) -> str | None:
    ours, theirs = first.recipe.tasks[name], run.recipe.tasks[name]
    was, now = first.data[f"{name}.dev"], run.data[f"{name}.dev"]
    expected, found = first.dev[name], run.dev[name]
    checks: list[tuple[str, object, object]] = [
        ("kind", ours.kind, theirs.kind),
        ("metric", ours.metric, theirs.metric),
        ("range", ours.range, theirs.range),
        ("labels", list(ours.label_names), list(theirs.label_names)),
        ("select_on", _selection(first), _selection(run)),
        ("dev rows", was["rows"], now["rows"]),
        ("sha256 of the dev file", _short(was["data"]), _short(now["data"])),
        ("sha256 of the dev targets", _short(was["labels"]), _short(now["labels"])),
        ("scored rows", expected.n, found.n),
    ]
    told = [f"{what} {now}, not {was}" for what, was, now in checks if was != now]
    if not told and list(expected.ids) != list(found.ids):
        told = ["the ids of the scored rows are others"]
    if not told and not (expected.targets == found.targets).all():
        told = [f"{int((expected.targets != found.targets).sum()):,} of the scored targets are others"]
    return ", ".join(told) or None


def _repeated(runs: Sequence[FinishedRun]) -> list[str]:
    seen: dict[Path, FinishedRun] = {}
    problems: list[str] = []
    for run in runs:
        first = seen.setdefault(run.path.resolve(), run)
        if first is not run:
            problems.append(f"{run.path}: named twice; expected different runs; leave it out")
    return problems


def _recipe_key(run: FinishedRun) -> str:
    """What runs of one recipe have in common: all but name, seed and where they ran; and the data."""
    recipe = run.recipe.model_dump(mode="json", exclude={"name", "seed", *PLACEMENT})
    return json.dumps([recipe, run.data], sort_keys=True)


def _names(sides: Sequence[tuple[FinishedRun, ...]]) -> list[str]:
    """Names that differ: the recipes', else the folders', else the paths."""
    ways: list[list[str]] = [
        [side[0].recipe.name for side in sides],
        [side[0].path.resolve().name for side in sides],
    ]
    return next((names for names in ways if len(set(names)) == len(names)), [str(side[0].path) for side in sides])


def _selection(run: FinishedRun) -> Mapping[str, float] | None:
    return None if run.recipe.select_on is None else run.recipe.select_on.model_dump()


def _short(sha256: str | None) -> str:
    return "none" if sha256 is None else sha256[:12]
