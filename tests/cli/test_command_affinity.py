"""``manyhead affinity``: tables, JSON, files, and what is refused."""

import json
from itertools import chain
from pathlib import Path

import pytest
from commands import document, run, write_recipe

WORDS = ("--examples", "16", "--batch-size", "2", "--warmup-steps", "2")


def test_it_says_what_agrees_and_what_to_do(recipe: Path) -> None:
    result = run("affinity", recipe, *WORDS)
    for word in ("reviews, questions", "questions, sentences", "95% interval", "cosine by layer", "Loss constants: "):
        assert word in result.stdout
    assert "together" in result.stdout
    assert "warming the heads: 2 steps" in result.stderr
    assert run("affinity", recipe, *WORDS, "-q").stderr == ""


def test_json_has_everything_and_is_the_same_each_time(recipe: Path) -> None:
    found = document("affinity", recipe, *WORDS)
    assert found == document("affinity", recipe, *WORDS)
    assert found["layers"] == ["embeddings", "layer 1", "layer 2"]
    assert found["tasks"].keys() == {"reviews", "questions", "sentences"}
    assert [pair["tasks"] for pair in found["pairs"]] == [
        ["reviews", "questions"],
        ["reviews", "sentences"],
        ["questions", "sentences"],
    ]
    for pair in found["pairs"]:
        low, high = pair["interval"]
        assert -1 <= low <= high <= 1
        assert pair["direction"] in ("agree", "conflict", "undecided")
        assert 0 <= pair["conflict_rate"] <= 1
        assert list(pair["layers"]) == found["layers"]
    suggestion = found["suggestion"]
    assert sorted(chain(*suggestion["groups"])) == ["questions", "reviews", "sentences"]
    assert sum(suggestion["constants"].values()) == pytest.approx(3)


def test_files_are_written(recipe: Path, tmp_path: Path) -> None:
    found = document("affinity", recipe, *WORDS, "--out", tmp_path / "a" / "b")
    folder = tmp_path / "a" / "b"
    assert json.loads((folder / "affinity.json").read_text("utf-8")) == found
    assert (folder / "affinity.png").read_bytes().startswith(b"\x89PNG")
    svg = (folder / "affinity.svg").read_bytes()
    assert b"sentences" in svg
    assert b"layer 2" in svg
    document("affinity", recipe, *WORDS, "--out", folder)
    assert (folder / "affinity.svg").read_bytes() == svg
    (tmp_path / "file").write_text("")
    assert "file" in run("affinity", recipe, *WORDS, "--out", tmp_path / "file", code=74).stderr


def test_predictions_are_set_beside_what_runs_gained(encoder: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", encoder)
    rows = [["reviews"], ["questions"], ["reviews", "questions"]]
    for tasks in rows:
        names = ", ".join(tasks)
        words = ("--set", f"stages.0.tasks=[{names}]", "--set", "stages.0.epochs=1", "-q")
        run("train", recipe, *words, "--out", tmp_path / "runs" / "-".join(tasks))
    found = document("affinity", recipe, *WORDS, "--measured", tmp_path / "runs")["measured"]
    assert [(case["task"], case["partners"]) for case in found["cases"]] == [
        ("reviews", ["questions"]),
        ("questions", ["reviews"]),
    ]
    assert found["cases"][0]["predicted"] == found["cases"][1]["predicted"]
    assert found["rank_correlation"] is None
    assert found["text"][0].startswith("The prediction cannot be judged")
    said = run("affinity", recipe, *WORDS, "--measured", tmp_path / "runs").stdout
    assert "trained with" in said
    assert "The prediction cannot be judged" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--examples", "0"), "--examples"),
        (("--batch-size", "0"), "--batch-size"),
        (("--warmup-steps", "-1"), "--warmup-steps"),
        (("--examples", "16", "--batch-size", "4"), "expected 8 or more"),
        (("--set", "stages.0.tasks=[reviews]"), "only reviews is trained"),
        (("--set", "stages.0.pretraining=mlm"), "every stage pretrains on texts"),
        (("--measured", "nowhere"), "holds no finished run"),
        (("--set", "stages.0.epochs=none"), "stages.0.epochs"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], said: str, recipe: Path) -> None:
    assert said in run("affinity", recipe, *words, code=2).stderr
