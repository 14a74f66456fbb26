"""The CS224N files: row counts, columns and speed."""

import os
import time
from pathlib import Path

import pytest
import yaml
from data_makers import make_recipe, make_task

from manyhead.data.check import check_data
from manyhead.data.guess import guess_recipe
from manyhead.data.read import read_table
from manyhead.recipe.schema import Recipe, Task
from manyhead.recipe.tables import TABLES

pytestmark = pytest.mark.real

ROWS = {
    "ids-sst-train.csv": 8544,
    "ids-sst-dev.csv": 1101,
    "ids-sst-test-student.csv": 2210,
    "ids-cfimdb-train.csv": 1707,
    "ids-cfimdb-dev.csv": 245,
    "ids-cfimdb-test-student.csv": 488,
    "sts-train.csv": 6040,
    "sts-dev.csv": 863,
    "sts-test-student.csv": 1725,
    "quora-dev.csv": 20_214,
    "quora-train.csv": 85_497,
    "quora-train-extra-positives.csv": 81_258,
}


@pytest.fixture
def folder() -> Path:
    return Path(os.environ["MANYHEAD_CS224N"])


def tasks() -> dict[str, Task]:
    pair = {"text": ["sentence1", "sentence2"]}
    one = {"text": ["sentence"], "target": "sentiment"}

    def files(name: str, *, test: bool = True) -> dict[str, str]:
        named = {"train": f"{name}-train.csv", "dev": f"{name}-dev.csv"}
        return named | ({"test": f"{name}-test-student.csv"} if test else {})

    return {
        "sst": make_task(**one, labels={i: str(i) for i in range(5)}, files=files("ids-sst")),
        "cfimdb": make_task(**one, files=files("ids-cfimdb")),
        "para": make_task(**pair, target="is_duplicate", files=files("quora", test=False)),
        "sts": make_task(**pair, kind="regression", target="similarity", range=[0, 5], files=files("sts")),
    }


@pytest.mark.parametrize("name", ROWS)
def test_all_rows_are_read(folder: Path, name: str) -> None:
    table = read_table(folder / name)
    assert sum(1 for _ in table) == ROWS[name]
    assert (table.rejects.total, table.stray_quotes, table.note) == (0, 0, "tab-separated, CSV quoting")


@pytest.mark.parametrize("name", ["ids-sst-test-student.csv", "ids-cfimdb-test-student.csv"])
def test_shifted_headers_name_the_right_columns(folder: Path, name: str) -> None:
    table = read_table(folder / name)
    assert table.columns == ("0", "", "id", "sentence")
    for _, (key, text) in table.select(["id", "sentence"]):
        assert len(str(key)) == 25
        assert int(str(key), 16) >= 0
        assert str(text).strip()


def test_check_counts_rows_rejects_and_classes(folder: Path) -> None:
    began = time.perf_counter()
    report = check_data(make_recipe(folder, tasks()))
    seconds = time.perf_counter() - began
    assert report.errors == []
    splits = {(split.task, split.split): split for split in report.splits}
    assert {Path(split.file).name: split.rows for split in report.splits} == {
        name: rows for name, rows in ROWS.items() if "extra" not in name
    }
    dev = splits["para", "dev"]
    assert (dev.used, dev.rejected, dev.reasons) == (20_212, 2, {"no target": 2})
    assert [reject.line for reject in dev.first_rejected] == [2577, 14222]
    assert list((splits["para", "train"].classes or {}).values()) == [53_410, 32_087]
    assert splits["para", "train"].duplicates == 0
    assert all(split.classes is None for split in report.splits if split.split == "test")
    assert not [leak for leak in report.leaks if leak.source == "para.train" and leak.what == "example"]
    assert sum(split.rows for split in report.splits) / seconds > 10_000


def test_guesses_are_right(folder: Path) -> None:
    names = [name for name in ROWS if "extra" not in name]
    text = guess_recipe([folder / name for name in names])
    recipe = Recipe.model_validate(yaml.safe_load(text), context={"tables": TABLES})
    expected = tasks()
    assert set(recipe.tasks) == {"sst", "cfimdb", "quora", "sts"}
    for name, task in recipe.tasks.items():
        wanted = expected["para" if name == "quora" else name]
        assert (task.kind, task.text, task.target) == (wanted.kind, wanted.text, wanted.target)
        assert (task.label_cells, task.range, task.files) == (wanted.label_cells, wanted.range, wanted.files)
    assert check_data(recipe).errors == []
