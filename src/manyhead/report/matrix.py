"""Targets against predictions as a table: counts, and each count's share of its row."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from manyhead.report.read import Predictions, number

MAX_CLASSES = 20
"""Classes a table shows; of more, the commonest confusions are listed instead."""
MAX_CONFUSIONS = 20
BUCKETS = 5


@dataclass(frozen=True)
class Matrix:
    """Counts by (index of the target's row, index of the prediction's column), both indices into ``names``.

    ``unplaced`` examples fit no class or are no numbers.
    """

    names: list[str]
    counts: Counter[tuple[int, int]]
    unplaced: int = 0

    @property
    def is_small(self) -> bool:
        """Whether it can be shown whole."""
        return len(self.names) <= MAX_CLASSES

    @property
    def rows(self) -> list[tuple[str, int, list[tuple[int, float]]]]:
        """Name, total and (count, share of the total) of each row."""
        totals, columns = self._totals(), range(len(self.names))
        return [
            (name, totals[row], [(count := self.counts[row, column], count / (totals[row] or 1)) for column in columns])
            for row, name in enumerate(self.names)
        ]

    @property
    def confusions(self) -> list[tuple[str, str, int, float]]:
        """The commonest mistakes: target, prediction, count and share of the target's rows."""
        totals = self._totals()
        mistakes = Counter({pair: count for pair, count in self.counts.items() if pair[0] != pair[1]})
        return [
            (self.names[row], self.names[column], count, count / totals[row])
            for (row, column), count in mistakes.most_common(MAX_CONFUSIONS)
        ]

    def _totals(self) -> Counter[int]:
        totals: Counter[int] = Counter()
        for (row, _), count in self.counts.items():
            totals[row] += count
        return totals


def class_matrix(predictions: Predictions, labels: object) -> Matrix:
    """The confusion matrix of a classification task.

    Args:
        predictions: Pairs of cells.
        labels: The recipe's labels, cell to name or a list of cells; anything else: the cells that occur.
    """
    cells = _cells(predictions, labels)
    by_text = {cell: index for index, cell in enumerate(cells)}
    by_number = {value: index for index, cell in enumerate(cells) if (value := _number(cell)) is not None}

    def place(cell: str) -> int | None:
        value = _number(cell)
        return by_text.get(cell, None if value is None else by_number.get(value))

    counts: Counter[tuple[int, int]] = Counter()
    for (target_cell, predicted_cell), examples in predictions.pairs.items():
        target, predicted = place(target_cell), place(predicted_cell)
        if target is not None and predicted is not None:
            counts[target, predicted] += examples
    return Matrix(list(cells.values()), counts, predictions.pairs.total() - counts.total())


def score_matrix(predictions: Predictions, bounds: object) -> Matrix | None:
    """Targets and predictions of a regression task, both cut into equal buckets; None without a number.

    Args:
        predictions: Pairs of cells.
        bounds: The recipe's lowest and highest target; anything else: the lowest and highest target that occur. What
            lies outside counts in the outermost bucket.
    """
    numbers = [(_number(target), _number(guess), count) for (target, guess), count in predictions.pairs.items()]
    usable = np.array([row for row in numbers if None not in row])
    if not len(usable):
        return None
    targets, guesses, examples = usable.T
    edges = np.linspace(*_bounds(bounds, targets), BUCKETS + 1)
    counts: Counter[tuple[int, int]] = Counter()
    places = np.digitize(targets, edges[1:-1]), np.digitize(guesses, edges[1:-1])
    for row, column, count in zip(*(place.tolist() for place in places), examples.tolist(), strict=True):
        counts[row, column] += int(count)
    names = [f"{start:.3g} to {end:.3g}" for start, end in pairwise(edges)]
    return Matrix(names, counts, predictions.pairs.total() - counts.total())


def _cells(predictions: Predictions, labels: object) -> dict[str, str]:
    if isinstance(labels, Mapping):
        return {str(cell): str(name) for cell, name in labels.items()}
    if isinstance(labels, Sequence) and not isinstance(labels, str):
        return {str(cell): str(cell) for cell in labels}
    occurring = sorted({cell for pair in predictions.pairs for cell in pair})
    return {cell: predictions.names.get(cell, cell) for cell in occurring}


def _number(cell: str) -> float | None:
    try:
        return number(float(cell))
    except ValueError:
        return None


def _bounds(bounds: object, targets: np.ndarray) -> tuple[float, float]:
    ends = [number(end) for end in bounds] if isinstance(bounds, Sequence) else []
    usable = [end for end in ends if end is not None]
    low, high = usable if len(ends) == len(usable) == 2 else (float(targets.min()), float(targets.max()))
    return (low, high) if high > low else (low - 0.5, low + 0.5)
