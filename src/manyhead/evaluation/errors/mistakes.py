"""The mistakes a model was surest of, and the examples on which two models disagree."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyhead.errors import UsageError
from manyhead.evaluation.scored import Scored

MOST = 50
"""Examples in a list, at most."""


@dataclass(frozen=True)
class Example:
    """An example to look at.

    ``row`` is its place among the predictions; ``target`` and ``predicted`` are names of classes, or scores. ``score``
    is what its list is ordered by, highest first.
    """

    row: int
    id: str
    texts: tuple[str, ...]
    target: str | float
    predicted: str | float
    score: float


@dataclass(frozen=True)
class Disagreements:
    """The examples of which one of two models is right and the other is not.

    Of classes, ``first_right`` are those that only the first predicts, ordered by how sure both are (the product of the
    probabilities that each gives to what it predicts); ``second_right`` the reverse. Of scores, the examples to which
    the first, or the second, is nearer, ordered by how much. ``n_first`` and ``n_second`` count all of them, the lists
    hold the first of them; ``n_alike`` counts the others. ``predicted`` is what the model says that is wrong.
    """

    n_first: int
    n_second: int
    n_alike: int
    first_right: tuple[Example, ...]
    second_right: tuple[Example, ...]


def mistakes_of(scored: Scored, most: int = MOST) -> tuple[Example, ...]:
    """The wrong predictions of the highest probability; of scores, those with the largest absolute residual."""
    if scored.kind == "classification":
        size, wrong = confidence_of(scored), scored.values != scored.targets
    else:
        size = np.abs(scored.values - scored.targets)
        wrong = size > 0
    return examples_of(scored, highest(size, wrong, most), size)


def disagreements_of(first: Scored, second: Scored, most: int = MOST) -> Disagreements:
    """Where two models that predicted the same examples disagree. Raises `UsageError` where these differ."""
    check_same_rows(first, second)
    if first.kind == "classification":
        right, other = first.values == first.targets, second.values == second.targets
        ahead, behind = right & ~other, other & ~right
        size = confidence_of(first) * confidence_of(second)
    else:
        error, other_error = np.abs(first.values - first.targets), np.abs(second.values - second.targets)
        ahead, behind = error < other_error, other_error < error
        size = np.abs(error - other_error)
    return Disagreements(
        int(ahead.sum()),
        int(behind.sum()),
        int(first.n - ahead.sum() - behind.sum()),
        examples_of(second, highest(size, ahead, most), size),
        examples_of(first, highest(size, behind, most), size),
    )


def check_same_rows(first: Scored, second: Scored) -> None:
    """Raises `UsageError` where two are not predictions of the same examples."""
    same = (
        first.kind == second.kind
        and first.labels == second.labels
        and list(first.ids) == list(second.ids)
        and np.array_equal(first.targets, second.targets)
    )
    if not same:
        raise UsageError(
            f"{first.task} and {second.task}: {first.n} and {second.n} examples with other ids, targets or labels; "
            "expected predictions of the same rows; compare runs on the same dev data"
        )


def examples_of(
    scored: Scored, rows: NDArray[np.int64], score: NDArray[Any], predicted: NDArray[np.int64] | None = None
) -> tuple[Example, ...]:
    """The examples in ``rows``, in their order, with the ``score`` (E,) of each; ``predicted`` (E,) replaces values."""
    values = scored.values if predicted is None else predicted

    def named(value: Any) -> str | float:
        return scored.labels[int(value)] if scored.kind == "classification" else float(value)

    return tuple(
        Example(
            row,
            scored.ids[row],
            tuple(scored.texts[row]) if len(scored.texts) else (),
            named(scored.targets[row]),
            named(values[row]),
            float(score[row]),
        )
        for row in map(int, rows)
    )


def highest(score: NDArray[Any], among: NDArray[np.bool_], most: int) -> NDArray[np.int64]:
    """The rows ``among`` (E,) of the highest ``score`` (E,), highest first, equal ones in their order."""
    rows = np.flatnonzero(among)
    return rows[np.argsort(-score[rows], kind="stable")][:most]


def confidence_of(scored: Scored) -> NDArray[np.float64]:
    """(E,) the probability of the predicted class; 1 where there are no probabilities."""
    if scored.probabilities is None:
        return np.ones(scored.n)
    return scored.probabilities[np.arange(scored.n), scored.values]
