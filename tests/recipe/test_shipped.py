import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from manyhead.errors import RecipeError
from manyhead.recipe.load import load_recipe
from manyhead.recipe.names import FOLDER, STUDIES
from manyhead.recipe.schema import DevFromTrain, EarlyStopping, Encoder, Files, Recipe, Stage, Task
from manyhead.recipe.shape import fields_of
from manyhead.recipe.shipped import shipped_recipes, shipped_text
from manyhead.recipe.yaml_text import parse_document

SHIPPED = {recipe.name: recipe for recipe in shipped_recipes()}
NAMES = list(SHIPPED)


def test_every_recipe_is_listed() -> None:
    assert sorted(NAMES) == NAMES
    assert {"cs224n", "cs224n-cpu", "cs224n-siamese", "quickstart", "template"} <= set(NAMES)
    assert len(NAMES) == len([path for path in FOLDER.rglob("*.y*ml") if STUDIES not in path.parents]) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_recipe_loads_and_is_described(name: str) -> None:
    shipped = SHIPPED[name]
    loaded = load_recipe(name)
    assert loaded.path == shipped.path
    assert loaded.recipe.name == name.replace("/", "-")
    assert 20 < len(shipped.title) < 110
    assert shipped.study in (None, "s1", "s2", "s3", "s4")
    assert set(shipped.published) <= {*loaded.recipe.tasks, "overall", "overall_raw"}
    header = shipped.path.read_text("utf-8").split("\nmanyhead:")[0]
    verb = "study" if loaded.recipe.grid or loaded.recipe.search else "train"
    assert f"manyhead {verb} {name} " in header or f"manyhead {name}\n" in header or name == "template"
    assert "Hardware: " in header or name == "template"


@pytest.mark.parametrize("name", NAMES)
def test_shown_recipe_is_the_same_wherever_it_is_saved(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = shipped_text(name)
    path = tmp_path / "copy.yaml"
    path.write_text(text, encoding="utf-8")
    copy, shipped = load_recipe(path).recipe, load_recipe(name).recipe
    assert copy.with_changes(data_dir="") == shipped.with_changes(data_dir="")
    shown = parse_document(text).value
    assert isinstance(shown, dict)
    assert not {"extends", "set"} & set(shown)
    assert (copy.grid, copy.search) == (shipped.grid, shipped.search)
    if name == "quickstart":
        assert copy.data_dir == shipped.data_dir
        assert Path(copy.data_dir, "reviews.train.csv").is_file()


def test_unknown_name() -> None:
    with pytest.raises(
        RecipeError, match=r"there is no shipped recipe 'cs224m'; expected one of .*; did you mean 'cs224n'"
    ):
        shipped_text("cs224m")


def test_best_single_model_of_the_third_study() -> None:
    recipe = load_recipe("cs224n").recipe
    stage = recipe.stages[0]
    assert (stage.epochs, stage.batch_size, stage.clip_norm, stage.schedule.kind) == (10, 8, 1.0, "interleaved")
    assert stage.optimizer.model_dump() == {
        "kind": "adam", "lr": 1e-5, "head_lr": None, "layer_decay": 1.0, "weight_decay": 0.0,
        "betas": (0.9, 0.99), "eps": 1e-8,
    }  # fmt: skip
    assert not recipe.encoder.segment_ids
    assert recipe.encoder.dropout == 0.1
    assert {task.head.model_dump()["dropout"] for task in recipe.tasks.values()} == {0.3}
    assert {task.pairing for task in recipe.tasks.values()} == {"concat"}


def test_template_has_every_key_with_a_comment() -> None:
    text = shipped_text("template")
    values: dict[str, Any] = yaml.safe_load(text)
    topic, stage = values["tasks"]["topic"], values["stages"][0]
    for model, given in (
        (Recipe, values), (Encoder, values["encoder"]), (Task, topic | values["tasks"]["agreement"]),
        (Files, topic["files"]), (DevFromTrain, topic["files"]["dev"]), (Stage, stage),
        (EarlyStopping, stage["early_stopping"]),
    ):  # fmt: skip
        assert set(given) == set(fields_of(model))
    lines = [line for line in text.splitlines() if re.match(r" *(- )?\w+: ", line)]
    explained = {line.split(":")[0].strip("- ") for line in lines if " # " in line}
    assert {line.split(":")[0].strip("- ") for line in lines} - explained == set()


def test_template_values_are_the_defaults_unless_said() -> None:
    recipe = load_recipe("template").recipe
    assert recipe.encoder == Encoder.model_validate({}, context={"tables": load_recipe("template").tables})
