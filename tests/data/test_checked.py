"""What checks found is kept as long as files and settings are the same, and equal to checking again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from data_makers import make_recipe, make_task, write_lines

from manyhead.data import checked
from manyhead.data.check import DataReport, check_data
from manyhead.data.checked import checked_data
from manyhead.recipe.schema import Recipe

ROWS = ["good film,1", "the film is bad,0", "good  FILM,0", "what,7", ",1"]
TASK: dict[str, Any] = {"files": {"train": "train.csv", "dev": "dev.csv"}, "max_rejected": 0.5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_lines(tmp_path / "train.csv", "text,label", *ROWS)
    write_lines(tmp_path / "dev.csv", "text,label", *ROWS[:2])
    return tmp_path


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes whose rows were read."""
    asked: list[Recipe] = []

    def counted(recipe: Recipe, **arguments: Any) -> DataReport:
        asked.append(recipe)
        return check_data(recipe, **arguments)

    monkeypatch.setattr(checked, "check_data", counted)
    return asked


def look(folder: Path, *, seed: int = 13, place: Any = None, **task: Any) -> DataReport:
    recipe = make_recipe(folder, {"t": make_task(**{**TASK, **task})}, seed=seed)
    return checked_data(recipe, place=place, cache_dir=folder / "cache")


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache").rglob("*.json"))


def test_rows_are_read_once_and_the_report_is_the_same(folder: Path, checks: list[Recipe]) -> None:
    first, again = (look(folder, place=lambda key: ("recipe.yaml", len(key))) for _ in range(2))
    assert len(checks) == 1
    fresh = check_data(checks[0], place=lambda key: ("recipe.yaml", len(key)))
    assert fresh.leaks
    assert fresh.splits[0].first_rejected
    assert fresh.splits[0].first_conflicts
    for found in (first, again):
        assert found.as_json() == fresh.as_json()
        assert [type(leak.first[0]) for leak in found.leaks] == [tuple] * len(fresh.leaks)
    elsewhere = look(folder, place=lambda _: ("other.yaml", 7))
    assert len(checks) == 1
    places = {(str(warning.path), warning.line) for warning in elsewhere.warnings}
    assert places == {("other.yaml", 7), (str(folder / "train.csv"), 5)}


CHANGES: list[dict[str, Any]] = [
    {"max_rejected": 0.7},
    {"labels": {1: "good", 0: "bad"}},
    {"labels": {"0": "bad", "1": "good"}},
    {"limit": {"train": 2}},
    {"charset": "latin-1"},
    {"files": {"train": "train.csv"}},
    {"files": {"train": "train.csv", "dev": {"from": "train", "fraction": 0.5}}},
    {"seed": 14},
]


def test_whatever_changes_what_is_found_is_checked_again(folder: Path, checks: list[Recipe]) -> None:
    look(folder)
    for count, change in enumerate(CHANGES, start=2):
        look(folder, **change)
        assert (len(checks), len(kept(folder))) == (count, count), change
    for name in ("train.csv", "dev.csv"):
        path = folder / name
        path.write_text(path.read_text().replace("film", "song"))
        assert look(folder).as_json() == check_data(checks[0]).as_json()
    assert len(checks) == len(CHANGES) + 3
    look(folder, class_weights="balanced", label_smoothing=0.1, head={"kind": "hidden"})
    assert len(checks) == len(CHANGES) + 3


@pytest.mark.parametrize("damage", ["", "null", "{}", '{"content": "{}", "sha256": "0"}', None])
def test_a_damaged_report_is_not_believed(folder: Path, checks: list[Recipe], damage: str | None) -> None:
    before = look(folder)
    (path,) = kept(folder)
    whole = path.read_text()
    path.write_text(whole.replace('\\"rejected\\":2', '\\"rejected\\":3') if damage is None else damage)
    assert path.read_text() != whole
    assert look(folder).as_json() == before.as_json()
    assert len(checks) == 2
    assert kept(folder) == [path]
    assert path.read_text() == whole


def test_errors_are_not_kept(folder: Path, checks: list[Recipe]) -> None:
    for _ in range(2):
        assert look(folder, max_rejected=0.0).errors
    (folder / "dev.csv").unlink()
    assert "no file" in str(look(folder).errors[0])
    assert len(checks) == 3
    assert kept(folder) == []


def test_a_file_that_changes_meanwhile_is_not_taken_for_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(recipe: Recipe, **arguments: Any) -> DataReport:
        report = check_data(recipe, **arguments)
        write_lines(folder / "dev.csv", "text,label", *ROWS[:1])
        return report

    with monkeypatch.context() as patch:
        patch.setattr(checked, "check_data", slow)
        look(folder)
    assert kept(folder) == []


def test_without_a_place_to_keep_it_checking_goes_on(folder: Path, checks: list[Recipe]) -> None:
    (folder / "cache").write_text("a file")
    for _ in range(2):
        assert replace(look(folder), warnings=[]).errors == []
    assert len(checks) == 2
