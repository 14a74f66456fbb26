"""Encoder and data both from the hub: pinned in the run's recipe, and resumable when the hub is gone."""

import csv
from pathlib import Path
from typing import Any

import pytest

import hub_stand_in
import manyhead
from hub_stand_in import HubStandIn
from manyhead.recipe.load import load_recipe
from tiny import SAMPLE, tiny_encoder, tiny_recipe

hub = pytest.fixture(scope="module")(hub_stand_in.running_hub)


def train_quietly(recipe: dict[str, Any], out: Path, *, resume: bool = False) -> dict[str, Any]:
    """Trains in the worker's process, whose cache of tokens is its own."""
    return dict(manyhead.train(recipe, out=out, resume=resume).summary)


def rows(name: str, count: int) -> str:
    with (SAMPLE / name).open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))[: count + 1]
    return "\n".join(",".join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in line) for line in lines) + "\n"


def test_a_run_from_the_hub_is_pinned_and_needs_it_no_more(hub: HubStandIn, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_encoder(tmp_path / "encoder").iterdir()}
    encoder = hub.put("models/acme/tiny", files)
    data = hub.put(
        "datasets/acme/reviews", {"train.csv": rows("reviews.train.csv", 24), "test.csv": rows("reviews.dev.csv", 12)}
    )
    recipe = tiny_recipe(Path("unused"))
    recipe["encoder"]["checkpoint"] = "acme/tiny"
    recipe["tasks"] = {"reviews": recipe["tasks"]["reviews"]}
    recipe["tasks"]["reviews"]["files"] = {"train": "hub:acme/reviews:train", "dev": "hub:acme/reviews:test"}
    with hub.worker(tmp_path / "home", MANYHEAD_CACHE=str(tmp_path / "cache")) as call:
        summary = call(train_quietly, recipe, tmp_path / "run")
        assert summary["dev"]["tasks"]["reviews"]["n"] == 12
        with hub.refusing():
            assert call(train_quietly, recipe, tmp_path / "run", resume=True) == summary
            assert call(train_quietly, recipe, tmp_path / "again")["dev"] == summary["dev"]
    resolved = load_recipe(tmp_path / "run" / "recipe.yaml").recipe
    assert resolved.encoder.revision == encoder
    assert resolved.tasks["reviews"].files.train == f"hub:acme/reviews:train@{data}"
