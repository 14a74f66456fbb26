"""Checking data: every row of every file, what was rejected, balance, duplicates, and leaks between splits and tasks.

Texts are compared after folding case and white space, as 64-bit hashes: about 40 bytes a row of a pair task, whatever
the texts' length.
"""

from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import blake2b
from itertools import product
from math import nan
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from manyhead.data.examples import Examples, Resolve, counted, findings, read_examples, reference_of, resolver, with_key
from manyhead.data.table import Reject
from manyhead.errors import DataError, Problem
from manyhead.recipe.schema import SPLITS, Recipe, Split, Task

Place = Callable[[str], tuple[Path | str | None, int | None]]
"""From a key of the recipe to the file and the line that wrote it."""

_SHOWN_PAIRS = 5
_BINS = 10
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_HASH_BYTES = 8
_ODD = np.uint64(0x9E3779B97F4A7C15)
_EMPTY = np.frombuffer(blake2b(b"", digest_size=_HASH_BYTES).digest(), np.uint64)[0]

Hashes = NDArray[np.uint64]
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
    what: Literal["example", "text"]
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


@dataclass(frozen=True)
class _Prints:
    """Fingerprints of a split's examples: of each as a whole (E,), and of its texts (E, n); with lines and targets."""

    task: str
    split: Split
    wholes: Hashes
    texts: Hashes
    lines: NDArray[np.int64]
    targets: Targets

    @property
    def name(self) -> str:
        return f"{self.task}.{self.split}"

    @cached_property
    def by_whole(self) -> tuple[NDArray[np.intp], Hashes]:
        """Examples in the order of their hashes, and the hashes so."""
        order = self.wholes.argsort(kind="stable")
        return order, self.wholes[order]

    @cached_property
    def by_text(self) -> tuple[NDArray[np.intp], Hashes]:
        """Texts, counted row by row, in the order of their hashes, and the hashes so."""
        flat = self.texts.ravel()
        order = flat.argsort(kind="stable")
        return order, flat[order]


def check_data(recipe: Recipe, *, place: Place | None = None, resolve: Resolve | None = None) -> DataReport:
    """Reads every file of every task and reports all that is wrong, and what is worth knowing.

    ``place`` finds keys in the recipe's file, for messages; ``resolve`` finds files (by default below ``data_dir``).
    """
    resolve = resolve or resolver(Path(recipe.data_dir))
    reports: list[SplitReport] = []
    prints: list[_Prints] = []
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
                found = _read(examples)
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
        [_placed(error, place) for error in dict.fromkeys(errors)],
        [_placed(warning, place) for warning in warnings],
    )


def _read(examples: Examples) -> _Prints:
    digests, lines, targets = bytearray(), array("q"), array("d")
    for line, _, texts, target in examples:
        for text in texts:
            digests += blake2b(_folded(text), digest_size=_HASH_BYTES).digest()
        lines.append(line)
        targets.append(nan if target is None else target)
    hashes = np.frombuffer(digests, np.uint64).reshape(-1, len(examples.task.text))
    wholes = hashes[:, 0] if len(examples.task.text) == 1 else _unordered(hashes)
    return _Prints(examples.name, examples.split, wholes, hashes, np.array(lines), np.array(targets))


def _folded(text: str) -> bytes:
    return " ".join(text.casefold().split()).encode()


def _unordered(pairs: Hashes) -> Hashes:
    """One hash for the two of each row, whatever their order."""
    return pairs.min(axis=1) * _ODD + pairs.max(axis=1)


def _report(examples: Examples, prints: _Prints) -> SplitReport:
    task, tally = examples.task, examples.tally()
    duplicates, conflicts = _duplicates(prints)
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
        duplicates=duplicates,
        conflicts=len(conflicts),
        first_conflicts=conflicts[:_SHOWN_PAIRS],
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


def _duplicates(prints: _Prints) -> tuple[int, list[tuple[int, int]]]:
    """Number of examples that stood in an earlier row; lines of first and later row where their targets differ."""
    order, wholes = prints.by_whole
    is_first = np.ones(len(wholes), bool)
    is_first[1:] = wholes[1:] != wholes[:-1]
    first_of = order[is_first][np.cumsum(is_first) - 1]
    differ = (prints.targets[order] != prints.targets[first_of]) & ~np.isnan(prints.targets[order])
    lines = np.stack([prints.lines[first_of[differ]], prints.lines[order[differ]]], axis=1)
    pairs = lines[lines[:, 1].argsort()].tolist()
    return int((~is_first).sum()), [(first, later) for first, later in pairs]


def _leaks(prints: list[_Prints]) -> list[Leak]:
    """Between the splits of each task, in either sense; and from each task's training texts into what others score."""
    found: list[Leak] = []
    for source, into in product(prints, prints):
        same_task = source.task == into.task
        if SPLITS.index(source.split) >= SPLITS.index(into.split) or not (same_task or source.split == "train"):
            continue
        if source.texts.shape[1] == into.texts.shape[1]:
            found.append(_leak(source, into, "example"))
        if source.texts.shape[1] + into.texts.shape[1] > 2:
            found.append(_leak(source, into, "text"))
    return [leak for leak in found if leak.rows]


def _leak(source: _Prints, into: _Prints, what: Literal["example", "text"]) -> Leak:
    order, known = source.by_whole if what == "example" else source.by_text
    asked = into.wholes[:, None] if what == "example" else into.texts
    places = np.searchsorted(known, asked).clip(max=max(0, len(known) - 1))
    is_known = known[places] == asked if len(known) else np.zeros(asked.shape, bool)
    if what == "text":
        is_known &= asked != _EMPTY
    rows = np.flatnonzero(is_known.any(axis=1))
    columns = is_known[rows].argmax(axis=1)[:_SHOWN_PAIRS]
    there = order[places[rows[:_SHOWN_PAIRS], columns]]
    if what == "text":
        there = there // source.texts.shape[1]
    first = list(zip(source.lines[there].tolist(), into.lines[rows[:_SHOWN_PAIRS]].tolist(), strict=True))
    return Leak(source.name, into.name, what, len(rows), len(rows) / max(1, len(asked)), first)


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


def _placed(problem: Problem, place: Place | None) -> Problem:
    """The problem with the recipe's file and line, unless it lies in a row of a data file."""
    if place is None or problem.key is None or problem.line is not None:
        return problem
    path, line = place(problem.key)
    text = problem.problem if problem.path is None else f"{problem.path}: {problem.problem}"
    return replace(problem, problem=text, path=path, line=line)
