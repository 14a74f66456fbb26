"""Guessed recipes: valid, complete, and right about the files they were guessed from."""

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from data_makers import write_jsonl, write_lines
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from manyhead.data.check import check_data
from manyhead.data.guess import guess_recipe
from manyhead.errors import UsageError
from manyhead.recipe.schema import DevFromTrain, Recipe
from manyhead.recipe.tables import TABLES

SENTENCES = [f"this is the sentence number {i} of them" for i in range(40)]


def guess(*files: Path, name: str | None = None) -> Recipe:
    """The guessed recipe, read back; its data holds no errors."""
    text = guess_recipe(files, name=name)
    recipe = Recipe.model_validate(yaml.safe_load(text), context={"tables": TABLES})
    report = check_data(recipe)
    assert not report.errors, text
    return recipe


def write_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_splits_of_a_task_are_found_by_name(tmp_path: Path) -> None:
    rows = [{"id": f"{i:x}f", "sentence": text, "stars": i % 5} for i, text in enumerate(SENTENCES)]
    files = [write_csv(tmp_path / f"ids-movies-{split}.csv", rows) for split in ("train", "dev", "test-student")]
    other = write_csv(tmp_path / "products.csv", rows, "\t")
    recipe = guess(*files, other)
    assert recipe.name == "movies-products"
    assert Path(recipe.data_dir) == tmp_path
    movies, products = recipe.tasks["movies"], recipe.tasks["products"]
    assert (movies.text, movies.target, movies.label_cells) == (["sentence"], "stars", [0, 1, 2, 3, 4])
    assert (movies.files.dev, movies.files.test) == ("ids-movies-dev.csv", "ids-movies-test-student.csv")
    assert isinstance(products.files.dev, DevFromTrain)


def test_same_names_in_different_folders_are_different_tasks(tmp_path: Path) -> None:
    for name in ("qa", "nli"):
        (tmp_path / name).mkdir()
        for split in ("train", "validation"):
            rows = [{"text": text, "y": i % 2} for i, text in enumerate(SENTENCES)]
            write_csv(tmp_path / name / f"{split}.csv", rows)
    files = sorted(tmp_path.glob("*/*.csv"))
    recipe = guess(*files)
    assert {name: task.files.train for name, task in recipe.tasks.items()} == {
        "nli": "nli/train.csv",
        "qa": "qa/train.csv",
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [("sentence1", "sentence2"), ("question_a", "question_b"), ("premise", "hypothesis"), ("left side", "right side")],
)
def test_pairs_are_found_by_name_or_length(tmp_path: Path, first: str, second: str) -> None:
    rows = [{"n": i, first: text, second: f"{text} too", "score": i / 8} for i, text in enumerate(SENTENCES)]
    task = guess(write_csv(tmp_path / "a.csv", rows)).tasks["a"]
    assert task.text == [first, second]
    assert (task.kind, task.range) == ("regression", (0.0, 5.0))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.2, 4.8, (0, 5)),
        (0.11, 0.95, (0.1, 1.0)),
        (3.5, 97.5, (0, 100)),
        (-1.0, 1.0, (-1, 1)),
        (1200, 1900.5, (1200, 2000)),
    ],
)
def test_ranges_are_rounded_outward(tmp_path: Path, low: float, high: float, expected: tuple[float, float]) -> None:
    values = [low, high, *[low + (high - low) * i / 41 for i in range(1, 39)]]
    rows = [{"text": text, "score": value} for text, value in zip(SENTENCES, values, strict=True)]
    range_ = guess(write_csv(tmp_path / "a.csv", rows)).tasks["a"].range
    assert range_ == pytest.approx(expected)


def test_labels_come_from_all_rows(tmp_path: Path) -> None:
    rows = [{"text": f"some text number {i}", "label": "0.0" if i < 3999 else "1.0"} for i in range(4000)]
    task = guess(write_csv(tmp_path / "a.csv", rows)).tasks["a"]
    assert task.labels == {0: "0", 1: "1"}


def test_json_lines_of_any_naming(tmp_path: Path) -> None:
    rows = [
        {"guid": f"x{i}", "payload": {"a": 1}, "utterance": text, "lang": "en", "mood": ["no", "yes", "on"][i % 3]}
        for i, text in enumerate(SENTENCES)
    ]
    task = guess(write_jsonl(tmp_path / "my data (v2).jsonl", rows)).tasks["my-v2"]
    assert (task.text, task.target, task.id) == (["utterance"], "mood", "guid")
    assert task.labels == ["no", "on", "yes"]


def test_parquet_and_truth_values(tmp_path: Path) -> None:
    table = pa.table({"review": SENTENCES, "is_toxic": [i % 2 == 0 for i in range(40)]})
    pq.write_table(table, tmp_path / "train.parquet")
    (task,) = guess(tmp_path / "train.parquet").tasks.values()
    assert (task.text, task.target, task.label_names) == (["review"], "is_toxic", ["False", "True"])


@given(
    column=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10),
    labels=st.sets(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
            lambda t: t == t.strip()
        ),
        min_size=2,
        max_size=4,
    ),
)
@settings(max_examples=25)
def test_any_names_and_labels_give_valid_recipes(
    tmp_path_factory: pytest.TempPathFactory, column: str, labels: set[str]
) -> None:
    assume(len({float(label) if label.isdecimal() else label for label in labels}) > 1)
    rows = [{column: text, "label": sorted(labels)[i % len(labels)]} for i, text in enumerate(SENTENCES)]
    recipe = guess(write_jsonl(tmp_path_factory.mktemp("guess") / "train.jsonl", rows))
    (task,) = recipe.tasks.values()
    assert task.text == [column]


def test_a_single_test_file_is_trained_on_and_said_so(tmp_path: Path) -> None:
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(SENTENCES)]
    path = write_csv(tmp_path / "a-dev.csv", rows)
    assert "none is called train" in guess_recipe([path])
    assert guess(path).tasks["a"].files.train == "a-dev.csv"


def test_what_cannot_be_guessed_is_said_for_all_files(tmp_path: Path) -> None:
    no_text = write_csv(tmp_path / "one.csv", [{"n": i, "label": i % 2} for i in range(9)])
    no_target = write_csv(tmp_path / "two.csv", [{"n": i, "text": text} for i, text in enumerate(SENTENCES)])
    constant = write_csv(tmp_path / "three.csv", [{"text": text, "label": 1} for text in SENTENCES])
    header = write_lines(tmp_path / "four.csv", "text,label")
    with pytest.raises(UsageError) as caught:
        guess_recipe([no_text, no_target, constant, header, tmp_path / "five.csv"])
    lines = str(caught.value).splitlines()
    assert "one.csv: no column looks like a text; the columns are 'n' (ids), 'label' (numbers); write" in lines[0]
    assert "two.csv: no column looks like a target" in lines[1]
    assert "three.csv: the column 'label' has the same value in all rows" in lines[2]
    assert "four.csv: there are no rows" in lines[3]
    assert "no file" in lines[4]
    with pytest.raises(UsageError, match="no files"):
        guess_recipe([])
