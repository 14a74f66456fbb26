"""Checking data: every row of every file, what was rejected, balance, repeated rows, leaks between splits and tasks."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyhead.data.examples import Examples, Resolve, counted, findings, read_examples, reference_of, resolver, with_key
from manyhead.data.prints import WHATS, Hashes, Prints, What, duplicates, read_prints, shared_rows, sorted_hashes
from manyhead.data.selection import halves_of
from manyhead.data.table import Reject
from manyhead.errors import DataError, Problem
from manyhead.recipe.schema import SPLITS, Recipe, Split, Task

Place = Callable[[str], tuple[Path | str | None, int | None]]
"""From a key of the recipe to the file and the line that wrote it."""

_BINS = 10
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)

Targets = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreSpread:
    """How the scores of a regression task lie: ``counts`` of the bins between ``edges``, and quantiles."""

    edges: list[float]
    counts: list[int]
    quantiles: dict[str, float]


@dataclass(frozen=True)
class SplitReport:
    """One split of one task. ``rows`` = ``used`` + ``rejected``; lines count from 1.

    ``duplicates``: rows whose text (pair: both texts, in any order) stood in an earlier row; ``conflicts``: those of
    them with another target than the first.
    """

    task: str
    split: Split
    file: str
    note: str
    rows: int
    used: int
    rejected: int
    reasons: dict[str, int]
    first_rejected: list[Reject]
    empty_texts: int
    replaced: int
    stray_quotes: int
    classes: dict[str, int] | None
    scores: ScoreSpread | None
    duplicates: int
    conflicts: int
    first_conflicts: list[tuple[int, int]]


@dataclass(frozen=True)
class Leak:
    """Rows of ``into`` that ``source`` holds too; both are TASK.SPLIT.

    ``what`` is "example" where all of the row's texts are the same, "text" where at least one of them is. ``first``
    holds lines: (of ``source``, of ``into``).
    """

    source: str
    into: str
    what: What
    rows: int
    share: float
    first: list[tuple[int, int]]


@dataclass(frozen=True)
class DataReport:
    """Everything found in the data of a recipe."""

    splits: list[SplitReport]
    leaks: list[Leak]
    errors: list[Problem]
    warnings: list[Problem]

    def raise_errors(self) -> None:
        """Raises `DataError` with all errors, if there are any."""
        if self.errors:
            raise DataError(self.errors)

    def as_json(self) -> dict[str, Any]:
        """The report as what JSON can hold; problems as one line each."""
        plain = asdict(self)
        return plain | {"errors": list(map(str, self.errors)), "warnings": list(map(str, self.warnings))}


def check_data(recipe: Recipe, *, place: Place | None = None, resolve: Resolve | None = None) -> DataReport:
    """Reads every file of every task and reports all that is wrong, and what is worth knowing.

    ``place`` finds keys in the recipe's file, for messages; ``resolve`` finds files (by default below ``data_dir``).
    """
    resolve = resolve or resolver(Path(recipe.data_dir))
    reports: list[SplitReport] = []
    prints: list[Prints] = []
    errors: list[Problem] = []
    warnings: list[Problem] = []
    for name, task in recipe.tasks.items():
        if task.files.train is not None and task.files.dev is None:
            do = "add dev: {from: train, fraction: 0.1}, or a dev file"
            problem = "no dev data: the task is not scored, and cannot help to pick the best checkpoint"
            warnings.append(Problem(problem, key=f"tasks.{name}.files", do=do))
        for split in SPLITS:
            reference = reference_of(task, split)
            if reference is None:
                continue
            try:
                examples = read_examples(name, task, split, resolve(reference), seed=recipe.seed)
                found = read_prints(examples)
                if split == "dev" and examples.tally().used:
                    halves_of(recipe, name, examples.tally().used)
            except DataError as error:
                errors += with_key(error, f"tasks.{name}.files.{split}").problems
                continue
            report = _report(examples, found)
            prints.append(found)
            reports.append(report)
            wrong, doubtful = findings(examples.tally(), examples.key, examples.table.path, task.max_rejected)
            errors += wrong
            warnings += doubtful + _doubts(report)
    leaks = _leaks(prints)
    warnings += [_leak_warning(leak) for leak in leaks if _is_grave(leak)]
    return DataReport(
        reports,
        leaks,
        [placed(error, place) for error in dict.fromkeys(errors)],
        [placed(warning, place) for warning in warnings],
    )


def _report(examples: Examples, prints: Prints) -> SplitReport:
    task, tally = examples.task, examples.tally()
    repeated, conflicts, first_conflicts = duplicates(prints)
    with_targets = examples.has_targets and tally.used > 0
    is_classification = task.kind == "classification"
    return SplitReport(
        task=examples.name,
        split=examples.split,
        file=str(examples.table.path),
        note=examples.table.note,
        rows=tally.rows,
        used=tally.used,
        rejected=tally.rejects.total,
        reasons=dict(tally.rejects.counts.most_common()),
        first_rejected=tally.rejects.first,
        empty_texts=tally.empty_texts,
        replaced=tally.replaced,
        stray_quotes=tally.stray_quotes,
        classes=_classes(task, prints.targets) if with_targets and is_classification else None,
        scores=_spread(task, prints.targets) if with_targets and not is_classification else None,
        duplicates=repeated,
        conflicts=conflicts,
        first_conflicts=first_conflicts,
    )


def _classes(task: Task, targets: Targets) -> dict[str, int]:
    counts = np.bincount(targets.astype(np.int64), minlength=len(task.label_names))
    return dict(zip(task.label_names, counts.tolist(), strict=True))


def _spread(task: Task, targets: Targets) -> ScoreSpread:
    try:
        counts, edges = np.histogram(targets, bins=_BINS, range=task.range)
    except ValueError:  # they lie too close together for so many bins
        counts, edges = np.array([len(targets)]), np.array([targets.min(), targets.max()])
    quantiles = np.quantile(targets, _QUANTILES)
    named = {f"{q:.0%}": float(value) for q, value in zip(_QUANTILES, quantiles, strict=True)}
    return ScoreSpread(edges.tolist(), counts.tolist(), named)


def _leaks(prints: list[Prints]) -> list[Leak]:
    """Between the splits of each task, in either sense; and from each task's training texts into what others score."""
    found: list[Leak] = []
    for source in prints:
        known: dict[What, Hashes] = {}
        for into in prints:
            same_task = source.task == into.task
            if SPLITS.index(source.split) >= SPLITS.index(into.split) or not (same_task or source.split == "train"):
                continue
            widths = source.texts.shape[1], into.texts.shape[1]
            fits = {"example": widths[0] == widths[1], "text": sum(widths) > 2}
            for what in WHATS:
                if not fits[what]:
                    continue
                if what not in known:
                    known[what] = sorted_hashes(source, what)
                rows, first = shared_rows(source, known[what], into, what)
                if rows:
                    found.append(Leak(source.name, into.name, what, rows, rows / len(into.lines), first))
    return found


def _is_grave(leak: Leak) -> bool:
    """Texts that pairs of one task share between splits are common and meant; whole rows, or other tasks' are not."""
    return leak.what == "example" or leak.source.rpartition(".")[0] != leak.into.rpartition(".")[0]


def _leak_warning(leak: Leak) -> Problem:
    where = ", ".join(f"{source} and {into}" for source, into in leak.first)
    what = "that stand" if leak.what == "example" else "with a text that stands"
    problem = f"{counted(leak.rows, 'row')} ({leak.share:.2%}) {what} in {leak.source} too (lines {where})"
    task, _, split = leak.into.rpartition(".")
    return Problem(problem, key=f"tasks.{task}.files.{split}", do="scores on them are too good")


def _doubts(report: SplitReport) -> list[Problem]:
    """What makes training or scores on a split doubtful."""
    key = f"tasks.{report.task}.files.{report.split}"
    doubts: list[str] = []
    if report.classes is not None:
        present = [name for name, count in report.classes.items() if count]
        absent = [name for name, count in report.classes.items() if not count]
        if len(present) == 1:
            doubts.append(f"all rows are of the class '{present[0]}'")
        elif absent:
            doubts.append(f"no rows of: {', '.join(absent)}")
    if report.scores is not None and report.scores.quantiles["0%"] == report.scores.quantiles["100%"]:
        doubts.append(f"all scores are {report.scores.quantiles['0%']:g}: correlations are undefined")
    if report.conflicts:
        where = ", ".join(f"{first} and {later}" for first, later in report.first_conflicts)
        doubts.append(
            f"{counted(report.conflicts, 'row')} with another target than an earlier equal row (lines {where})"
        )
    return [Problem(doubt, report.file, key=key) for doubt in doubts]


def placed(problem: Problem, place: Place | None) -> Problem:
    """The problem with the recipe's file and line, unless it lies in a row of a data file."""
    if place is None or problem.key is None or problem.line is not None:
        return problem
    path, line = place(problem.key)
    text = problem.problem if problem.path is None else f"{problem.path}: {problem.problem}"
    return replace(problem, problem=text, path=path, line=line)
