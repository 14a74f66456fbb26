"""The examples of a page as data: rows that its script filters, searches and pages through.

All mistakes come before what is right, the surest mistakes first; what is right is a seeded sample where not all of it
fits. Rows are cut to a number of bytes, shared by the tasks, so that the page stays small.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyhead.evaluation.errors.buckets import bucket_edges
from manyhead.evaluation.errors.mistakes import confidence_of
from manyhead.evaluation.errors.slices import memberships
from manyhead.evaluation.scored import Scored
from manyhead.report.text import shortened, visible

BUDGET_BYTES = 1_700_000
"""For the rows of all tasks."""
_SEED = 0x5A3B1E


@dataclass(frozen=True)
class TaskExamples:
    """The examples of a task, as one run or several predicted them."""

    name: str
    runs: Sequence[str]
    classes: Sequence[str]
    """Names of classes, or of the buckets of scores."""
    slices: Sequence[str]
    is_regression: bool
    total: int
    n_wrong: int
    """Of the total, those that some run gets wrong."""
    rows: Sequence[list[Any]]
    """Those that fit, in order: id, texts, target's class, target, a list of each run's [predicted class, prediction,
    probability, 1 if it is right], places in ``slices``."""

    @property
    def wrong_shown(self) -> int:
        """Of ``rows``, those that some run gets wrong."""
        return sum(not all(said[3] for said in row[4]) for row in self.rows)


def gather_examples(
    tasks: Mapping[str, Mapping[str, Scored]], *, budget_bytes: int = BUDGET_BYTES
) -> list[TaskExamples]:
    """The examples of each task, as predicted by each run: task to (run to predictions).

    Runs of a task that did not predict the same rows as its first are left out.
    """
    found: list[TaskExamples] = []
    left = budget_bytes
    for place, (name, by_run) in enumerate(tasks.items()):
        examples = _task_examples(name, alike(by_run), left // (len(tasks) - place))
        left -= sum(_size(row) for row in examples.rows)
        found.append(examples)
    return found


def alike(by_run: Mapping[str, Scored]) -> dict[str, Scored]:
    """The runs that predicted the same examples as the first."""
    first = next(iter(by_run.values()))
    return {
        run: each
        for run, each in by_run.items()
        if list(each.ids) == list(first.ids)
        and each.labels == first.labels
        and np.array_equal(each.targets, first.targets)
    }


def data_block(tasks: Sequence[TaskExamples]) -> str:
    """The tasks as JSON that may stand inside a script element of a page."""
    content = [
        {
            "name": visible(task.name),
            "runs": [visible(run) for run in task.runs],
            "classes": [visible(name) for name in task.classes],
            "slices": [visible(name) for name in task.slices],
            "regression": task.is_regression,
            "total": task.total,
            "rows": task.rows,
        }
        for task in tasks
    ]
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _task_examples(name: str, by_run: Mapping[str, Scored], budget_bytes: int) -> TaskExamples:
    first = next(iter(by_run.values()))
    classes, target = _classes(first, first.targets)
    predicted = {run: _classes(each, each.values)[1] for run, each in by_run.items()}
    right = np.array([each == target for each in predicted.values()])
    slices = memberships(first) if len(first.texts) else []
    masks = np.array([each.mask for each in slices]) if slices else np.zeros((0, first.n), bool)

    def row(place: int) -> list[Any]:
        said = [
            [
                int(predicted[run][place]),
                _value(each, each.values[place]),
                _probability(each, place),
                int(right[number, place]),
            ]
            for number, (run, each) in enumerate(by_run.items())
        ]
        texts = [shortened(text) for text in first.texts[place]] if len(first.texts) else []
        inside = np.flatnonzero(masks[:, place]).tolist()
        target_text = _value(first, first.targets[place])
        return [shortened(first.ids[place], 80), texts, int(target[place]), target_text, said, inside]

    rows: list[list[Any]] = []
    for place in _order(list(by_run.values()), np.all(right, axis=0)).tolist():
        found = row(place)
        budget_bytes -= _size(found)
        if budget_bytes < 0:
            break
        rows.append(found)
    return TaskExamples(
        name,
        list(by_run),
        classes,
        [each.name for each in slices],
        first.kind == "regression",
        first.n,
        int((~right.all(0)).sum()),
        rows,
    )


def _order(runs: Sequence[Scored], all_right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows: what some run gets wrong, the largest mistake first, then a seeded order of the others."""
    wrong = np.flatnonzero(~all_right)
    size = np.max([_size_of_mistake(run) for run in runs], axis=0)
    rest = np.random.default_rng(_SEED).permutation(np.flatnonzero(all_right))
    return np.concatenate([wrong[np.argsort(-size[wrong], kind="stable")], rest])


def _size_of_mistake(scored: Scored) -> NDArray[np.float64]:
    if scored.kind == "regression":
        return np.abs(scored.values - scored.targets)
    return confidence_of(scored) * (scored.values != scored.targets)


def _classes(scored: Scored, values: NDArray[Any]) -> tuple[Sequence[str], NDArray[np.int64]]:
    """Names of the classes, or buckets, and the one that each value is in; values beyond the range are in the last."""
    if scored.kind == "classification":
        return scored.labels, values
    edges = bucket_edges(scored)
    names = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)]
    return names, np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def _value(scored: Scored, value: Any) -> str:
    if scored.kind == "regression":
        return f"{value:.2f}".replace("-", "\u2212")
    return shortened(scored.labels[int(value)], 80)


def _probability(scored: Scored, place: int) -> str:
    if scored.probabilities is None:
        return ""
    return f"{scored.probabilities[place, scored.values[place]]:.2f}"


def _size(row: list[Any]) -> int:
    """Bytes a row takes in the page, with the escapes of markup."""
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "surrogatepass")) + 1 + 5 * sum(map(text.count, "<>&"))
