"""Heads of siamese pairs and losses of cosines: which go together, and what is said where they do not."""

from typing import Any

import pytest

from manyhead.errors import RecipeError
from manyhead.recipe.load import load_recipe

COSINE: dict[str, Any] = {"kind": "cosine"}
BLEND: dict[str, Any] = {"kind": "blend", "alpha": 0.99}


def load(loss: str, head: dict[str, Any] | str, *, score: bool = False, pairing: str = "siamese") -> None:
    task: dict[str, Any] = {
        "kind": "regression" if score else "classification",
        "text": ["one", "two"],
        "target": "same",
        "pairing": pairing,
        "files": {"train": "pairs.csv"},
        "head": head,
        "loss": loss,
        **({"range": [0, 5]} if score else {"labels": ["no", "yes"]}),
    }
    load_recipe({"manyhead": 1, "name": "pairs", "tasks": {"pairs": task}})


@pytest.mark.parametrize("loss", ["bce", "mnr", "cosine_embedding", "cosine_triplet"])
def test_a_cosine_is_a_logit_or_what_vector_losses_pull_at(loss: str) -> None:
    load(loss, COSINE)


def test_an_mlp_before_the_cosine_learns_from_the_cosine() -> None:
    load("bce", {**COSINE, "mlp": 64})
    load("cosine_mse", {**COSINE, "mlp": 64}, score=True)


def test_scores_are_blended_or_a_cosine_scaled() -> None:
    load("cosine_mse", COSINE, score=True)
    for loss in ("mse", "mse_l1"):
        load(loss, {**BLEND, "scale": 5.0}, score=True)
    load("bce", BLEND)


@pytest.mark.parametrize(
    ("loss", "head", "score", "message"),
    [
        ("cross_entropy", COSINE, False, "the cosine head does not fit 'cross_entropy'; set loss: bce or mnr or"),
        ("mse", COSINE, True, "the cosine head does not fit 'mse'; set loss: cosine_mse, or another head"),
        ("cross_entropy", BLEND, False, "the blend head does not fit 'cross_entropy'; set loss: bce, or another head"),
        ("score_cross_entropy", BLEND, True, "does not fit 'score_cross_entropy'; set loss: mse or mse_l1, or another"),
        ("cosine_mse", BLEND, True, "cosine_mse needs the cosine head; set head: cosine"),
        ("mnr", "linear", False, "mnr needs the cosine head; set head: cosine"),
    ],
)
def test_what_does_not_go_together_is_refused(loss: str, head: Any, score: bool, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(loss, head, score=score)
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(("loss", "head"), [("bce", COSINE), ("bce", BLEND), ("mnr", COSINE)])
def test_pair_heads_need_siamese_pairs(loss: str, head: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=rf"the {head['kind']} head needs a siamese pair; .* pairing: siamese"):
        load(loss, head, pairing="concat")
