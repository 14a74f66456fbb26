"""Pretraining as a stage of a run: it goes on after an interruption, and leaves an ordinary model behind."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from manyhead.build import train
from manyhead.errors import StoppedError
from manyhead.inference.predictor import Model
from manyhead.recipe.load import load_recipe
from stopping import StopAt, records_of
from tiny import tiny_encoder, tiny_recipe


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def recipe_of(encoder: Path, kind: str) -> dict[str, Any]:
    recipe = tiny_recipe(encoder, epochs=1, batch_size=12)
    (main,) = recipe["stages"]
    recipe["stages"] = [{**main, "name": "texts", "pretraining": kind}, main]
    return recipe


@pytest.mark.parametrize(("kind", "stop"), [("mlm", 1), ("simcse", 1), ("simcse", 2), ("simcse_pairs", 3)])
def test_a_stopped_stage_goes_on_to_the_same_bits(encoder: Path, tmp_path: Path, kind: str, stop: int) -> None:
    recipe = load_recipe(recipe_of(encoder, kind))
    whole = train(recipe, out=tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(recipe, out=tmp_path / "parted", observer=StopAt(stop))
    parted = train(recipe, out=tmp_path / "parted", resume=True)
    assert records_of(whole.path) == records_of(parted.path)
    weights = [run.path / "model" / "weights.safetensors" for run in (whole, parted)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert {name.partition(".")[0] for name in load_file(weights[0])} == {"encoder", "heads"}
    steps = [line for line in records_of(whole.path) if line["kind"] == "step"]
    assert [line["stage"] for line in steps] == ["texts"] * 2 + ["multitask"] * 2
    assert steps[0]["losses"]["questions"] > 0
    if kind == "simcse_pairs":
        assert steps[0]["losses"]["reviews"] == 0
    assert len(Model.load(parted.path).predict("reviews", ["a film", "a meal"])) == 2
