"""Targets against predictions as a table: counts, and each count's share of its row."""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_CLASSES = 16
"""Classes a table shows; of more, the commonest confusions are listed instead."""
MAX_CONFUSIONS = 20


@dataclass(frozen=True)
class Matrix:
    """Counts (C, C) of the classes ``names``, a row a target, a column a prediction."""

    names: Sequence[str]
    counts: Sequence[Sequence[int]]

    @property
    def is_small(self) -> bool:
        """Whether it can be shown whole."""
        return len(self.names) <= MAX_CLASSES

    @property
    def rows(self) -> list[tuple[str, int, list[tuple[int, float]]]]:
        """Name, total and (count, share of the total) of each row."""
        totals = [sum(row) for row in self.counts]
        return [
            (name, total, [(count, count / (total or 1)) for count in row])
            for name, total, row in zip(self.names, totals, self.counts, strict=True)
        ]

    @property
    def confusions(self) -> list[tuple[str, str, int, float]]:
        """The commonest mistakes: target, prediction, count and share of the target's rows."""
        mistakes = [
            (count, row, column)
            for row, of_row in enumerate(self.counts)
            for column, count in enumerate(of_row)
            if count and row != column
        ]
        mistakes.sort(key=lambda mistake: (-mistake[0], *mistake[1:]))
        return [
            (self.names[row], self.names[column], count, count / sum(self.counts[row]))
            for count, row, column in mistakes[:MAX_CONFUSIONS]
        ]
