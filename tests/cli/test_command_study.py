"""``manyhead study``: its table, its document, how it ends, and what refuses a recipe of several runs."""

import json
from pathlib import Path
from typing import get_args

import pytest
import yaml
from commands import document, run, write_recipe

from manyhead.cli.study import BudgetName
from manyhead.studies import schema
from manyhead.studies.run import StudyResult


@pytest.fixture
def study(encoder: Path, tmp_path: Path) -> Path:
    write_recipe(tmp_path / "tiny.yaml", encoder, epochs=1)
    path = tmp_path / "study.yaml"
    path.write_text("study: 1\nname: try\ntitle: A try\nbaseline: tiny\nrows: [{recipe: tiny.yaml, name: tiny}]\n")
    return path


def test_the_budgets_of_the_command_are_those_of_studies() -> None:
    assert get_args(BudgetName) == get_args(schema.BudgetName)


def test_the_table_is_printed_and_written(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("study", study, "--budget", "smoke")
    for shown in (
        "reviews",
        "questions",
        "sentences",
        "overall_raw",
        "tiny",
        "at most 64 training examples",
        "versions",
    ):
        assert shown in result.stdout
    assert "run 1 of 1" in result.stderr
    folder = Path("runs/studies/try-smoke")
    assert f"written: {folder}/table.md" in result.stderr
    written = json.loads((folder / "table.json").read_text())
    assert written["command"] == ["manyhead", "study", str(study), "--budget", "smoke"]
    found = document("study", study, "--budget", "smoke", "-q")
    assert found == written | {"command": found["command"]}
    assert (folder / "table.md").read_text().startswith("# try: A try\n")
    assert (folder / "table.csv").read_text().startswith("row,status,seeds,reviews,")


def test_mistakes_come_at_once_with_their_place(study: Path, tmp_path: Path) -> None:
    study.write_text(study.read_text().replace("title: A try", "titel: x").replace("rows: [", "rows: [3, "))
    result = run("study", study, "--out", tmp_path / "out", code=2)
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == [f"{study}:3", f"{study}:5"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [("--seeds", "0"), ("--jobs", "0"), ("--budget", "tiny")])
def test_options_out_of_range(study: Path, words: tuple[str, str]) -> None:
    assert words[0] in run("study", study, *words, code=2).stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [("grid", {"stages.0.epochs": [1, 2]}), ("search", {"keys": {"stages.0.epochs": [1, 2]}})],
)
def test_a_recipe_of_several_runs_is_for_a_study(key: str, value: object, encoder: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "tiny.yaml", encoder)
    path.write_text(path.read_text() + yaml.safe_dump({key: value}))
    said = run("train", path, "--out", tmp_path / "run", code=2).stderr
    assert f"{path}: has a {key}" in said
    assert f"manyhead study {path}" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("statuses", "code"),
    [((), 0), (("failed",), 2), (("diverged",), 3), (("failed", "diverged"), 3)],
)
def test_what_it_ends_with(statuses: tuple[str, ...], code: int) -> None:
    failures = [{"status": status} for status in statuses]
    assert StudyResult(Path(), {"failures": failures}).exit_code == code
