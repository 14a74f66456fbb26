"""Losses of pairs in a whole run: their thresholds are fitted and shipped, their state survives an interruption."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from manyhead.build import train
from manyhead.errors import StoppedError
from manyhead.recipe.load import load_recipe
from stopping import StopAt, records_of
from tiny import tiny_encoder, tiny_recipe


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def recipe_of(encoder: Path, **questions: Any) -> dict[str, Any]:
    recipe = tiny_recipe(encoder)
    recipe["tasks"]["questions"].update(pairing="siamese", **questions)
    return recipe


@pytest.mark.parametrize(
    "questions",
    [
        {"loss": "bce", "auxiliary": ["cosine_embedding", {"kind": "cosine_triplet", "weight": 0.5}]},
        {"loss": "cosine_triplet", "head": "cosine"},
    ],
)
def test_a_stopped_run_goes_on_with_the_sentences_of_the_piece_before(
    encoder: Path, tmp_path: Path, questions: dict[str, Any]
) -> None:
    recipe = load_recipe(recipe_of(encoder, **questions))
    whole = train(recipe, out=tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(recipe, out=tmp_path / "parted", observer=StopAt(2))
    parted = train(recipe, out=tmp_path / "parted", resume=True)
    assert records_of(whole.path) == records_of(parted.path)


@pytest.mark.parametrize(
    "questions",
    [
        {"loss": "mnr", "head": "cosine"},
        {"loss": "cosine_embedding", "head": "cosine"},
        {"loss": {"kind": "bce", "threshold": "fitted"}},
    ],
)
def test_a_fitted_threshold_is_shipped(encoder: Path, tmp_path: Path, questions: dict[str, Any]) -> None:
    done = train(load_recipe(recipe_of(encoder, **questions)), out=tmp_path / "run")
    weights = load_file(done.path / "model" / "weights.safetensors")
    (threshold,) = (tensor for name, tensor in weights.items() if name.startswith("thresholds."))
    assert threshold.item() != 0
