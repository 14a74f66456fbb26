"""Losses that do not fit their task are told before any data is read."""

from typing import Any

import pytest

from manyhead.errors import RecipeError
from manyhead.recipe.load import load_recipe

PAIR: dict[str, Any] = {"kind": "classification", "text": ["a", "b"], "labels": [0, 1], "pairing": "siamese"}
COSINE: dict[str, Any] = {**PAIR, "head": "cosine"}
SCORE: dict[str, Any] = {"kind": "regression", "text": ["a", "b"], "range": [0, 5]}


def load(task: dict[str, Any]) -> list[str]:
    """What is said of a task: lines from the key on."""
    whole = {"target": "y", "files": {"train": "t.csv"}, **task}
    try:
        load_recipe({"manyhead": 1, "name": "a", "tasks": {"t": whole}})
    except RecipeError as error:
        return [line.removeprefix("tasks.t.") for line in str(error).splitlines()]
    return []


@pytest.mark.parametrize("loss", ["mnr", {"kind": "mnr", "scale": 1.0}, "cosine_embedding", "cosine_triplet"])
def test_losses_of_vectors_fit_a_siamese_pair_of_two_classes(loss: Any) -> None:
    assert load({**COSINE, "loss": loss}) == []
    assert load({**PAIR, "loss": "bce", "auxiliary": [loss]}) == []


@pytest.mark.parametrize(
    "task",
    [
        {**PAIR, "loss": "bce", "auxiliary": ["cosine_embedding", {"kind": "cosine_triplet", "weight": 0.5}]},
        {**PAIR, "loss": {"kind": "bce", "threshold": "fitted"}},
        {**SCORE, "loss": {"kind": "mse_l1", "gamma": 0.2}},
        {**SCORE, "loss": {"kind": "score_cross_entropy", "targets": "hard"}},
        {**SCORE, "range": [-2, 3], "loss": "score_cross_entropy"},
    ],
)
def test_losses_that_fit(task: dict[str, Any]) -> None:
    assert load(task) == []


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({**SCORE, "pairing": "siamese", "head": "cosine", "loss": "mnr"}, "loss: 'mnr' is no loss of a regression"),
        ({**PAIR, "loss": "mse_l1"}, "loss: 'mse_l1' is no loss of a classification"),
        ({**PAIR, "loss": "score_cross_entropy"}, "loss: 'score_cross_entropy' is no loss of a classification"),
        ({**COSINE, "labels": [0, 1, 2], "loss": "mnr"}, "loss: 'mnr' is for two classes, and there are 3"),
        ({**PAIR, "loss": "mnr"}, "loss: mnr needs the cosine head"),
        ({**COSINE, "pairing": "concat", "loss": "mnr"}, "head: the cosine head needs a siamese pair"),
        ({**COSINE, "loss": {"kind": "mnr", "weight": 2.0}}, "loss.weight: only an auxiliary loss has a weight"),
        ({**COSINE, "loss": "mnr", "class_weights": "balanced"}, "class_weights: 'mnr' has no use for it"),
        ({**COSINE, "loss": "mnr", "label_smoothing": 0.1}, "label_smoothing: 'mnr' has no use for it"),
        (
            {**COSINE, "head": {"kind": "cosine", "dropout": 0.1}, "loss": "mnr"},
            "head.dropout: 'mnr' learns from the vectors before the head",
        ),
        (
            {**COSINE, "head": {"kind": "cosine", "mlp": 8}, "loss": "cosine_embedding"},
            "head.mlp: 'cosine_embedding' learns from the vectors before the head; remove it",
        ),
        (
            {**SCORE, "range": [0, 4.5], "loss": "score_cross_entropy"},
            "range: has an end in between; expected two whole numbers",
        ),
        (
            {**SCORE, "range": None, "loss": "score_cross_entropy"},
            "range: is missing, and score_cross_entropy needs it",
        ),
        (
            {**PAIR, "auxiliary": ["mnr", "bce"]},
            "auxiliary.1: 'bce' reads the head's outputs, which are those of the task's loss",
        ),
        (
            {**SCORE, "auxiliary": ["cosine_embedding"]},
            "auxiliary.0: 'cosine_embedding' is no loss of a regression; remove it",
        ),
        ({**PAIR, "labels": [0, 1, 2], "auxiliary": ["mnr"]}, "auxiliary.0: 'mnr' is for two classes"),
        ({**PAIR, "pairing": "concat", "auxiliary": ["mnr"]}, "auxiliary.0: mnr needs a siamese pair"),
        (
            {**PAIR, "text": "a", "pairing": "concat", "auxiliary": [{"kind": "cosine_triplet"}]},
            "auxiliary.0.kind: cosine_triplet needs a siamese pair",
        ),
        (
            {**PAIR, "auxiliary": [{"kind": "cosine_embedding", "weight": 0}]},
            "auxiliary.0.weight: cannot be 0; expected a number > 0",
        ),
        ({**COSINE, "loss": {"kind": "mnr", "scale": 0.0}}, "loss.scale: cannot be 0.0; expected a number > 0"),
        ({**SCORE, "loss": {"kind": "mse_l1", "gamma": 1.5}}, "loss.gamma: cannot be 1.5"),
    ],
)
def test_losses_that_do_not(task: dict[str, Any], says: str) -> None:
    (line,) = load(task)
    assert line.startswith(says)
