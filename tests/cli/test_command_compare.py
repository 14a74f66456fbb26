"""``manyhead compare``: its table, its document, and how it ends."""

import shutil
from pathlib import Path

import yaml
from commands import document, run

from manyhead.cli.compare import EXAMPLES


def other_run(trained: Path, path: Path, **changes: object) -> Path:
    shutil.copytree(trained, path, symlinks=True)
    recipe = yaml.safe_load((path / "recipe.yaml").read_text()) | changes
    (path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def test_people_get_a_table_and_sentences(trained: Path, tmp_path: Path) -> None:
    result = run("compare", trained, other_run(trained, tmp_path / "other", seed=14))
    for shown in ("p (Holm)", "verdict", "overall", "no evidence", "selected on these rows", "(seed 14)"):
        assert shown in result.stdout
    assert "tell too little" in result.stdout
    assert result.stderr == ""


def test_a_document_says_everything(trained: Path, tmp_path: Path) -> None:
    words = ("compare", trained, other_run(trained, tmp_path / "other", threads=2), "--level", "0.9", "--seed", "5")
    found = document(*words)
    assert set(found) == {"baseline", "sides", "selected_on_these_rows", "comparisons"}
    task = found["comparisons"][0]["tasks"][0]
    assert task["baseline"]["level"] == 0.9
    assert {"p", "p_holm", "p_values", "effects", "verdict", "sentence", "examples_needed"} <= set(task)
    assert document(*words) == found


def test_runs_that_cannot_be_compared(trained: Path, tmp_path: Path) -> None:
    assert "at least two" in run("compare", trained, code=2).stderr
    assert "named twice" in run("compare", trained, trained, code=2).stderr
    result = run("compare", trained, tmp_path / "gone", tmp_path / "lost", "--json", code=4)
    assert len(result.stderr.splitlines()) == 2
    assert result.stdout == ""
    halves = other_run(trained, tmp_path / "halves", select_on={"dev": 0.5})
    assert "select_on" in run("compare", trained, halves, code=2).stderr


def test_help_shows_examples() -> None:
    assert EXAMPLES[0] in run("compare", "--help").stdout
