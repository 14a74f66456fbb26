"""``manyhead export``: what it prints, compares and refuses."""

import json
from pathlib import Path

import pytest
from commands import document, run

from manyhead.export import FORMATS
from manyhead.export.texts import OWN
from manyhead.faults import injected


@pytest.mark.slow
def test_an_export_is_compared_with_the_model_on_the_dev_rows(trained: Path, tmp_path: Path) -> None:
    found = document("export", trained, "--to", "hub", "--out", tmp_path / "out", "--check-rows", 5)
    assert (found["format"], found["folder"], found["pushed"]) == ("hub", str(tmp_path / "out"), None)
    parity = {each["name"]: each for each in found["parity"]}
    assert {name: each["texts"] for name, each in parity.items()} == {
        "reviews": 5 + len(OWN) + 1,
        "questions": 5 + len(OWN),
        "sentences": 5 + len(OWN),
    }
    assert all(each["ok"] and each["largest_difference"] <= each["tolerance"] == 1e-5 for each in parity.values())
    assert parity["reviews"]["same_labels"] == parity["reviews"]["texts"]
    assert parity["sentences"]["same_labels"] is None
    lines = run("export", trained, "--to", "hub", "--out", tmp_path / "all", "--check-rows", 0).stdout.splitlines()
    assert lines[0].startswith(f"reviews: {12 + len(OWN) + 1} texts, largest difference ")
    assert lines[-1] == str(tmp_path / "all")


@pytest.mark.slow
def test_an_export_that_is_off_is_not_kept(trained: Path, tmp_path: Path) -> None:
    def damage(place: str, value: object) -> object:
        if place == "export: written":
            assert isinstance(value, Path)
            config = value / "reviews" / "config.json"
            config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_act": "relu"}))
        return value

    with injected(damage):
        words = ("--to", "sentence-transformers", "--task", "reviews", "--out", tmp_path / "out")
        result = run("export", trained, *words, code=4)
    assert "the export does not say what the model says; nothing was kept" in result.stderr
    assert "reviews: " in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_dev_rows_of_other_files_are_read(trained: Path, tmp_path: Path) -> None:
    result = run("export", trained, "--to", "hub", "--out", tmp_path / "out", "--data-dir", tmp_path, code=2)
    assert "reviews.dev.csv" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "tensorflow"), f"no format 'tensorflow'; expected one of {', '.join(FORMATS)}"),
        (("--to", "transformers", "--task", "moods"), "no task 'moods'; expected one of reviews"),
        (("--to", "transformers", "--push", "a/b"), "--push: only with --to hub"),
        (("--to", "peft", "--license", "mit", "--private"), "--private, --license: only with --to hub"),
        (("--to", "hub", "--private"), "--private: says how --push makes a repository"),
        (("--to", "hub", "--push", "name"), "'name' has no owner; expected OWNER/NAME"),
        (("--to", "hub", "--push", "a/b/c"), "expected OWNER/NAME"),
        (("--to", "hub", "--task", "reviews"), "--to hub exports the whole model"),
        (("--to", "transformers"), "encoder.pooling: mean: the plain classes read the first token alone; --to onnx"),
        (("--to", "peft"), "encoder.experts: null: this model has no adapters"),
    ],
)
def test_what_cannot_be_exported_is_said(trained: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    result = run("export", trained, *words, "--out", tmp_path / "out", code=2)
    assert said in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_model_is_4(tmp_path: Path) -> None:
    assert "no model there" in run("export", tmp_path, "--to", "hub", "--out", tmp_path / "out", code=4).stderr
