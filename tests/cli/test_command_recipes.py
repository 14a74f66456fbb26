"""``manyhead recipes ls`` and ``parameters``."""

from pathlib import Path

import pytest
from commands import document, run, write_recipe
from rich.console import Console

from manyhead.cli import recipes
from manyhead.recipe.shipped import described, shipped_recipes


def test_recipes_are_grouped_by_folder() -> None:
    listed = run("recipes", "ls").stdout.splitlines()
    for folder in ("s1/", "s2/", "s3/", "s4/", "balancing/", "regularisers/"):
        (start,) = (number for number, line in enumerate(listed) if line.split(" ")[0] == folder)
        size = sum(recipe.name.startswith(folder) for recipe in shipped_recipes())
        assert all(line.startswith(folder) for line in listed[start + 1 : start + 1 + size])
        assert not any(line.startswith(folder) for line in listed[:start])
    assert listed[1].startswith("cs224n"), "recipes without a folder come first"


def test_the_list_fits_a_narrow_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=80)
    for part in recipes.listing(recipes.shipped()):
        console.print(part)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for entry in recipes.shipped():
        assert any(line.split(" ")[0] == entry["name"] for line in lines), "a name is never broken"


def test_a_pattern_picks_names() -> None:
    names = [recipe.name for recipe in shipped_recipes()]
    found = [entry["name"] for entry in document("recipes", "ls", "s1/")["recipes"]]
    assert found == [name for name in names if "s1/" in name]
    assert found
    found = [entry["name"] for entry in document("recipes", "ls", "s?/single-*sst")["recipes"]]
    assert found == [name for name in names if name[:1] == "s" and name.endswith("single-sst")]
    result = run("recipes", "ls", "zzz", code=2)
    assert "no shipped recipe has 'zzz' in its name" in result.stderr
    assert result.stdout == ""


def test_parameters_stand_beside_the_published_ones() -> None:
    found = {each["name"]: each for each in document("recipes", "parameters", "cs224n", "s3/low-rank")["recipes"]}
    assert found["cs224n"]["total"] == found["cs224n"]["trained"] == 108_891_648 + 5 * 769 + 769 + 769
    assert found["cs224n"]["published"] is None
    low_rank = found["s3/low-rank"]
    assert sum(low_rank["stages"].values()) == low_rank["trained"] == sum(low_rank["per_task"].values())
    assert low_rank["published"] == pytest.approx(low_rank["trained"], rel=0.1)
    shown = run("recipes", "parameters", "s3/low-rank")
    assert "81.000" in shown.stdout
    assert "with the sizes of bert-base" in shown.stderr


def test_parameters_of_an_own_recipe_and_encoder(encoder: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "mine.yaml", "google-bert/bert-base-uncased")
    (found,) = document("recipes", "parameters", recipe, "--encoder", encoder)["recipes"]
    checked = document("check", write_recipe(tmp_path / "own.yaml", encoder))["parameters"]
    assert {key: found[key] for key in checked} == checked
    assert "gone" in run("recipes", "parameters", "cs224n", "--encoder", tmp_path / "gone", code=2).stderr
    assert "did you mean 'cs224n'" in run("recipes", "parameters", "cs224m", code=2).stderr


def test_the_published_number_is_read_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("# A title\n# published_parameters: 81e6\nmanyhead: 1\n")
    assert described("recipe", path).published_parameters == 81e6
    path.write_text("# A title\nmanyhead: 1\n")
    assert described("recipe", path).published_parameters is None
