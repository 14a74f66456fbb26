"""`Scored`: what was predicted for the examples of a task beside what was right, as evidence is drawn from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scored:
    """Predictions of E examples of one task, in the order of its file.

    Attributes:
        kind: Classes, or a score.
        metric: The task's own metric, a key of `METRICS`.
        ids: The rows' ids (E).
        targets: (E,) int64 classes, from 0 in the order of ``labels``, or float64 scores.
        values: (E,) what was predicted, of the same type as ``targets``.
        probabilities: (E, C) of classes, None for scores.
        texts: For each example its text, or its pair of texts; empty where they are not known.
        truncated: (E,) whether a text was cut.
        labels: Names of the C classes; empty for scores.
        range: Lowest and highest target of a score, where the recipe gives them.
    """

    task: str
    kind: Literal["classification", "regression"]
    metric: str
    ids: Sequence[str]
    targets: NDArray[Any]
    values: NDArray[Any]
    probabilities: NDArray[np.float64] | None = None
    texts: Sequence[tuple[str, ...]] = ()
    truncated: NDArray[np.bool_] | None = None
    labels: tuple[str, ...] = ()
    range: tuple[float, float] | None = None

    @property
    def n(self) -> int:
        """E."""
        return len(self.targets)

    def take(self, rows: NDArray[Any]) -> "Scored":
        """Some of the examples: row numbers, or a mask (E,)."""
        places = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Scored(
            self.task,
            self.kind,
            self.metric,
            [self.ids[place] for place in places.tolist()],
            self.targets[places],
            self.values[places],
            None if self.probabilities is None else self.probabilities[places],
            [self.texts[place] for place in places.tolist()] if len(self.texts) else (),
            None if self.truncated is None else self.truncated[places],
            self.labels,
            self.range,
        )
