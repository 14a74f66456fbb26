"""Run folders compared: which are one recipe, and what keeps runs from being compared."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

import manyhead
from manyhead.errors import CheckpointError, UsageError
from manyhead.evidence.compare import compare_runs
from manyhead.evidence.predictions import read_predictions
from manyhead.recipe.stored import load_stored_recipe
from manyhead.training.run_folder import RunFolder
from tiny import tiny_encoder, tiny_recipe

Vary = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    recipe = tiny_recipe(tiny_encoder(folder / "encoder"), epochs=1)
    for task in recipe["tasks"].values():
        task["limit"] = {"train": 8, "dev": 80}
    recipe["select_on"] = {"dev": 0.5}
    manyhead.train(recipe, out=folder / "run")
    return folder / "run"


@pytest.fixture
def vary(trained: Path, tmp_path: Path) -> Vary:
    """A copy of the run under another seed, with other predictions and keys of its recipe."""

    def make(folder: str, seed: int, skill: float = 0.5, **changes: object) -> Path:
        path = tmp_path / folder
        shutil.copytree(trained, path, symlinks=True)
        recipe = yaml.safe_load((path / "recipe.yaml").read_text()) | {"seed": seed} | changes
        (path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        generator = np.random.default_rng([seed, round(100 * skill)])
        for file in sorted((path / "predictions").glob("*.csv")):
            rewrite(file, lambda row: row["target"] if generator.random() < skill else row["prediction"])
        return path

    return make


def rewrite(file: Path, prediction: Callable[[dict[str, str]], str], column: str = "prediction") -> None:
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row[column] = prediction(row)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_two_runs_of_one_recipe_are_two_sides(vary: Vary) -> None:
    found = compare_runs([vary("a", 13, 0.1), vary("b", 14, 0.9)], resamples=300)
    assert [side.name for side in found.sides] == ["a", "b"]
    comparison = found.comparisons[0]
    assert comparison.about == "models"
    assert [task.task for task in comparison.tasks] == ["reviews", "questions", "sentences"]
    assert comparison.tasks[0].verdict == "helped"
    assert comparison.tasks[0].n == 40
    assert comparison.overall is not None
    assert not found.selected


def test_runs_that_differ_in_name_and_seed_are_one_side(vary: Vary) -> None:
    first = [vary(f"a{seed}", seed, 0.2, name=f"a{seed}") for seed in (13, 14, 15)]
    second = [vary(f"b{seed}", seed, 0.8, calibrate=False) for seed in (13, 14)]
    found = compare_runs([first[0], second[0], *first[1:], second[1]], resamples=300)
    assert [len(side.runs) for side in found.sides] == [3, 2]
    assert found.comparisons[0].about == "recipes"
    assert found.comparisons[0].tasks[0].runs == (3, 2)
    document = found.as_dict()
    assert document["sides"][0]["seeds"] == [13, 14, 15]
    assert document["comparisons"][0]["tasks"][0]["verdict"] == "helped"


def test_each_other_side_is_compared_with_the_first(vary: Vary) -> None:
    found = compare_runs([vary("a", 1), vary("b", 1, calibrate=False), vary("c", 1, precision="bf16")], resamples=200)
    assert [each.names for each in found.comparisons] == [("a", "b"), ("a", "c")]


def test_all_that_is_no_finished_run_is_told_at_once(vary: Vary, tmp_path: Path) -> None:
    good, unfinished, silent = vary("good", 1), vary("unfinished", 2), vary("silent", 3)
    RunFolder(unfinished).update_state(status="training")
    (silent / "predictions" / "reviews.dev.csv").unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError) as raised:
        compare_runs([good, unfinished, silent, tmp_path / "empty", tmp_path / "gone"])
    lines = str(raised.value).splitlines()
    expected = ("not finished", "no predictions of reviews", "no recipe.yaml", "no recipe.yaml")
    assert len(lines) == len(expected)
    assert all(part in line for part, line in zip(expected, lines, strict=True))
    assert all("; expected " in line for line in lines)


def test_all_differences_of_the_data_are_told_at_once(vary: Vary) -> None:
    first, other = vary("a", 1), vary("b", 2)
    data = RunFolder(other).read_state()["data"]
    data["reviews.dev"] = {"rows": 70, "data": "0" * 64, "labels": "1" * 64}
    RunFolder(other).update_state(data=data)
    rewrite(other / "predictions" / "questions.dev.csv", lambda row: row["id"] + "x", "id")
    rewrite(other / "predictions" / "sentences.dev.csv", lambda row: "0.123", "target")
    with pytest.raises(UsageError) as raised:
        compare_runs([first, other])
    lines = str(raised.value).splitlines()
    assert len(lines) == 3
    assert "reviews: dev rows 70, not 80" in lines[0]
    assert "sha256 of the dev targets" in lines[0]
    assert "ids of the scored rows" in lines[1]
    assert "scored targets are others" in lines[2]


def test_other_halves_of_dev_and_other_metrics_are_refused(vary: Vary, trained: Path) -> None:
    tasks = yaml.safe_load((trained / "recipe.yaml").read_text())["tasks"]
    tasks["reviews"]["metric"] = "macro_f1"
    first = vary("a", 1)
    for changes, word in (({"select_on": None}, "select_on None, not {'dev': 0.5}"), ({"tasks": tasks}, "macro_f1")):
        other = vary(f"b{len(word)}", 2, **changes)
        with pytest.raises(UsageError) as raised:
            compare_runs([first, other])
        assert word in str(raised.value)


def test_a_run_named_twice_and_a_seed_twice_are_refused(vary: Vary) -> None:
    first, second, other = vary("a", 1), vary("b", 1), vary("c", 1, calibrate=False)
    with pytest.raises(UsageError, match="named twice"):
        compare_runs([first, first])
    with pytest.raises(UsageError, match="same recipe and seed"):
        compare_runs([first, second, other])
    with pytest.raises(UsageError, match="at least two"):
        compare_runs([first])


def test_only_common_tasks_are_compared(vary: Vary, trained: Path) -> None:
    tasks = yaml.safe_load((trained / "recipe.yaml").read_text())["tasks"]
    alone = vary("alone", 1, tasks={"questions": tasks["questions"]})
    found = compare_runs([alone, vary("all", 1)], resamples=200).comparisons[0]
    assert [task.task for task in found.tasks] == ["questions"]
    assert found.left_out == {"all": ["reviews", "sentences"]}
    assert found.overall is None
    with pytest.raises(UsageError, match="no task in common"):
        compare_runs([alone, vary("other", 1, tasks={"reviews": tasks["reviews"]})])


ODD_TEXTS = ["a\rb", "\rc", "one\r\ntwo", "three\nfour", 'five "six"', "seven, eight", " nine\t", "ten"]


def test_texts_of_any_characters_are_read_back(tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_encoder(tmp_path / "encoder"), tasks=["reviews"], epochs=1)
    dev = tmp_path / "dev.jsonl"
    column, target = recipe["tasks"]["reviews"]["text"], recipe["tasks"]["reviews"]["target"]
    cells = list(recipe["tasks"]["reviews"]["labels"])
    rows = [{column: text, target: cells[number % 2]} for number, text in enumerate(ODD_TEXTS)]
    dev.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe["tasks"]["reviews"]["files"]["dev"] = str(dev)
    run = manyhead.train(recipe, out=tmp_path / "run")
    found = read_predictions(run.path, "reviews", load_stored_recipe(run.path / "recipe.yaml").recipe.tasks["reviews"])
    assert [text for (text,) in found.texts] == ODD_TEXTS
    path = run.path / "predictions" / "reviews.dev.csv"
    path.write_text(path.read_text(encoding="utf-8") + "torn,\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="row 9 has other columns than the header"):
        read_predictions(run.path, "reviews", load_stored_recipe(run.path / "recipe.yaml").recipe.tasks["reviews"])


def test_scores_on_other_ranges_are_not_compared(vary: Vary, trained: Path) -> None:
    tasks = yaml.safe_load((trained / "recipe.yaml").read_text())["tasks"]
    tasks["sentences"]["range"] = [0, 9]
    with pytest.raises(UsageError, match=r"sentences: range .*9.*, not .*5"):
        compare_runs([vary("a", 13), vary("b", 13, tasks=tasks)])
