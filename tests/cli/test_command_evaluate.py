"""``manyhead evaluate``: the same scores as while training, on any file with targets."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from commands import document, run

from tiny import SAMPLE


def test_scores_are_those_of_the_run(trained: Path) -> None:
    found = document("evaluate", trained)
    assert set(found) == {"tasks", "overall", "overall_raw", "intervals", "selection"}
    assert document("evaluate", trained / "model") == found
    intervals = found.pop("intervals")
    assert found.pop("selection").startswith("selected on these rows")
    assert set(intervals) == {"reviews", "questions", "sentences", "overall", "overall_raw"}
    assert intervals["reviews"]["value"] == found["tasks"]["reviews"]["accuracy"]
    summary = json.loads((trained / "summary.json").read_text())
    assert found == summary["dev"]


def test_one_task_has_no_overall(trained: Path) -> None:
    found = document("evaluate", trained, "--task", "reviews")
    assert list(found["tasks"]) == ["reviews"]
    assert set(found["tasks"]["reviews"]) == {"accuracy", "macro_f1", "mcc", "n"}
    assert (found["overall"], found["overall_raw"]) == (None, None)


def test_a_file_is_scored_whole(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    shutil.copy(SAMPLE / "sentences.dev.csv", path)
    found = document("evaluate", trained, "--task", "sentences", "--file", path)
    assert found["tasks"]["sentences"]["n"] == 80
    assert document("evaluate", trained, "--split", "train")["tasks"]["reviews"]["n"] == 24


def test_people_get_a_table(trained: Path) -> None:
    result = run("evaluate", trained)
    for shown in ("reviews", "accuracy", "macro_f1", "overall ", "overall_raw", "95 % interval"):
        assert shown in result.stdout
    assert run("evaluate", trained, "-q").stdout == result.stdout


def test_data_without_targets_is_for_predict(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "blind.csv"
    with (SAMPLE / "reviews.dev.csv").open(newline="") as source, path.open("w", newline="") as file:
        csv.writer(file).writerows(row[:2] for row in csv.reader(source))
    for words in (("--file", path), ("--split", "test", "--set", f"tasks.reviews.files.test={path}")):
        assert "use manyhead predict" in run("evaluate", trained, "--task", "reviews", *words, code=2).stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--task", "nonsense"), "expected one of reviews, questions, sentences"),
        (("--file", "x.csv"), "--task"),
        (("--file", "x.csv", "--task", "reviews"), "no file"),
        (("--split", "test"), "no task has test data"),
        (("--split", "test", "--task", "reviews"), "no test file"),
        (("--set", "encoder.max_tokens=8"), "encoder.max_tokens"),
        (("--set", "tasks.reviews.labels=[a, b]"), "labels"),
        (("--set", "tasks.reviews.files.dev=gone.csv"), "gone.csv"),
        (("--data-dir", "elsewhere"), "elsewhere/reviews.dev.csv"),
        (("--set", "device=warp"), "device"),
    ],
)
def test_what_cannot_be_done_is_told(words: tuple[str, ...], expected: str, trained: Path) -> None:
    result = run("evaluate", trained, *words, "--json", code=2)
    assert expected in result.stderr
    assert result.stdout == ""


def test_a_folder_without_a_model_ends_with_4(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "gone"):
        assert str(folder) in run("evaluate", folder, code=4).stderr


def test_a_damaged_model_ends_with_4(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    weights = tmp_path / "model/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "weights.safetensors" in run("evaluate", tmp_path / "model", code=4).stderr


def test_a_model_chooses_no_code(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    recipe = tmp_path / "model/recipe.yaml"
    (tmp_path / "sly_plugin.py").write_text("raise SystemExit('ran')\n")
    recipe.write_text(recipe.read_text().replace("plugins: []", "plugins: [sly_plugin]"))
    for verb in (("evaluate",), ("predict", "--task", "reviews")):
        result = run(verb[0], tmp_path / "model", *verb[1:], code=2)
        assert "--plugin sly_plugin" in result.stderr
