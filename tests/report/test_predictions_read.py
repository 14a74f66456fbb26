import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyhead.report.predictions import Predictions, read_predictions

CLASSES = {"kind": "classification", "labels": {0: "no", 1: "yes"}, "metric": "accuracy"}
SCORES = {"kind": "regression", "range": [0, 5], "metric": "pearson"}


def read(folder: Path, text: str, task: Any) -> Predictions:
    path = folder / "t.dev.csv"
    path.write_text(text, encoding="utf-8")
    return read_predictions(path, "t", task)


def test_cells_match_as_text_else_as_equal_numbers(tmp_path: Path) -> None:
    found = read(tmp_path, "id,target,prediction\na,0.0,0\nb,1.0,0\nc,1,1\n", CLASSES)
    assert found.scored is not None
    assert found.scored.labels == ("no", "yes")
    assert found.scored.targets.tolist() == [0, 1, 1]
    assert found.scored.values.tolist() == [0, 0, 1]
    assert found.scored.ids == ["a", "b", "c"]
    assert found.scored.probabilities is None
    assert found.unplaced == 0


def test_what_fits_no_class_or_is_no_number_is_counted_apart(tmp_path: Path) -> None:
    found = read(tmp_path, "id,target,prediction\na,nan,0\nb,other,1\nc,0,\nd,1,0\n", CLASSES)
    assert found.scored is not None
    assert (found.rows, found.unplaced, found.scored.ids) == (4, 3, ["d"])
    found = read(tmp_path, "id,target,prediction\na,1,inf\nb,,2\nc,3,nan\nd,4,1e99\n", SCORES)
    assert found == Predictions(None, 4, 4)


def test_probabilities_are_read_where_all_are_there_and_are_some(tmp_path: Path) -> None:
    text = "id,target,prediction,probability_no,probability_yes\na,0,1,0.25,{}\n"
    found = read(tmp_path, text.format("0.75"), CLASSES)
    assert found.scored is not None
    np.testing.assert_array_equal(found.scored.probabilities, [[0.25, 0.75]])
    for odd in ("", "nan", "7", "-1", "x"):
        found = read(tmp_path, text.format(odd), CLASSES)
        assert found.scored is not None
        assert found.scored.probabilities is None


def test_without_a_recipe_the_cells_that_occur_are_the_classes(tmp_path: Path) -> None:
    found = read(tmp_path, "target,prediction,label\n1,0,no\n0,0,no\n", {})
    assert found.scored is not None
    assert found.scored.labels == ("no", "1")
    assert found.scored.ids == ["", ""]


def test_texts_are_one_or_a_pair(tmp_path: Path) -> None:
    found = read(tmp_path, 'id,target,text,prediction\na,1,"x, ""y""",0\n', CLASSES)
    assert found.scored is not None
    assert found.scored.texts == [('x, "y"',)]
    found = read(tmp_path, "id,target,text_1,text_2,prediction,truncated\na,1,x,y,2,1\n", SCORES)
    assert found.scored is not None
    assert found.scored.texts == [("x", "y")]
    assert found.scored.truncated is not None
    assert found.scored.truncated.tolist() == [True]
    assert found.scored.range == (0, 5)


@pytest.mark.parametrize("bounds", [None, [3, 3], ["a", "b"], "05", [True, 7], [0, 10**400], [0, float("nan")]])
def test_a_range_that_is_none_is_left_out(tmp_path: Path, bounds: object) -> None:
    found = read(tmp_path, "target,prediction\n3,2.9\n", {**SCORES, "range": bounds})
    assert found.scored is not None
    assert found.scored.range is None


def test_a_text_longer_than_csv_reads_of_itself_is_read(tmp_path: Path) -> None:
    before = csv.field_size_limit(1000)
    try:
        found = read(tmp_path, f"id,target,text,prediction\na,3,{'x' * 2000},2.9\n", SCORES)
    finally:
        csv.field_size_limit(before)
    assert found.scored is not None
    assert found.scored.n == 1
