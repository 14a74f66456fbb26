"""Predictions made by hand or by chance."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from manyhead.evaluation.scored import Scored


def classes(
    targets: Sequence[int],
    probabilities: Any,
    *,
    texts: Sequence[tuple[str, ...]] = (),
    labels: Sequence[str] | None = None,
    metric: str = "accuracy",
) -> Scored:
    """A task of classes whose predictions are the most probable ones."""
    found = np.asarray(probabilities, np.float64)
    return Scored(
        "task",
        "classification",
        metric,
        [f"id{row}" for row in range(len(targets))],
        np.asarray(targets, np.int64),
        found.argmax(1),
        found,
        texts,
        None,
        tuple(labels or (f"c{number}" for number in range(found.shape[1]))),
    )


def scores(
    targets: Any,
    values: Any,
    *,
    texts: Sequence[tuple[str, ...]] = (),
    range: tuple[float, float] | None = (0, 5),
    metric: str = "pearson",
) -> Scored:
    """A task that predicts scores."""
    ids = [f"id{row}" for row, _ in enumerate(targets)]
    actual, found = np.asarray(targets, np.float64), np.asarray(values, np.float64)
    return Scored("task", "regression", metric, ids, actual, found, None, texts, None, (), range)


def random_classes(seed: int, n: int, size: int, *, sure: float = 1.0, right: float = 1.0) -> Scored:
    """Softmax predictions of ``size`` classes for targets drawn alike."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, size, n)
    logits = generator.normal(size=(n, size))
    logits[np.arange(n), targets] += right
    weights = np.exp(sure * (logits - logits.max(1, keepdims=True)))
    return classes(targets.tolist(), weights / weights.sum(1, keepdims=True))
