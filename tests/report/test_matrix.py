from collections import Counter

import pytest

from manyhead.report.matrix import MAX_CLASSES, MAX_CONFUSIONS, Matrix, class_matrix, score_matrix
from manyhead.report.read import Predictions


def predictions(*pairs: tuple[str, str]) -> Predictions:
    return Predictions(Counter(pairs), {"0": "no", "1": "yes"})


def dense(matrix: Matrix) -> list[list[int]]:
    return [[count for count, _ in cells] for _, _, cells in matrix.rows]


def test_cells_match_as_text_else_as_equal_numbers() -> None:
    matrix = class_matrix(predictions(("0.0", "0"), ("1.0", "0"), ("1", "1"), ("1", "1")), {0: "no", 1: "yes"})
    assert matrix.names == ["no", "yes"]
    assert dense(matrix) == [[1, 0], [1, 2]]
    assert matrix.unplaced == 0


def test_what_fits_no_class_is_counted_apart() -> None:
    matrix = class_matrix(predictions(("nan", "a"), ("other", "b"), ("a", ""), ("a", "b")), ["a", "b"])
    assert dense(matrix) == [[0, 1], [0, 0]]
    assert matrix.unplaced == 3


def test_without_labels_the_cells_that_occur_are_the_classes() -> None:
    matrix = class_matrix(predictions(("1", "0"), ("0", "0")), None)
    assert matrix.names == ["no", "yes"]
    assert dense(matrix) == [[1, 0], [1, 0]]


def test_rows_give_shares_of_their_total() -> None:
    matrix = class_matrix(predictions(("a", "a"), ("a", "b"), ("a", "b"), ("a", "b")), ["a", "b"])
    assert matrix.rows == [("a", 4, [(1, 0.25), (3, 0.75)]), ("b", 0, [(0, 0.0), (0, 0.0)])]
    assert matrix.confusions == [("a", "b", 3, 0.75)]


def test_of_many_classes_the_commonest_mistakes_are_listed() -> None:
    labels = [f"c{index}" for index in range(50)]
    found = Predictions(Counter({(f"c{index}", f"c{index - 1}"): index + 1 for index in range(1, 50)}))
    matrix = class_matrix(found, labels)
    assert len(labels) > MAX_CLASSES
    assert not matrix.is_small
    assert len(matrix.confusions) == MAX_CONFUSIONS
    assert matrix.confusions[0] == ("c49", "c48", 50, 1.0)


def test_scores_are_clipped_and_cut_into_buckets() -> None:
    matrix = score_matrix(predictions(("0", "-9"), ("5", "7.5"), ("2.5", "2.4"), ("1", "nan"), ("", "1")), [0, 5])
    assert matrix is not None
    assert matrix.names == ["0 to 1", "1 to 2", "2 to 3", "3 to 4", "4 to 5"]
    assert [matrix.counts[index, index] for index in range(5)] == [1, 0, 1, 0, 1]
    assert matrix.unplaced == 2


@pytest.mark.parametrize("bounds", [None, [3, 3], ["a", "b"], "05", [True, 7], [0, 10**400]])
def test_without_a_usable_range_the_targets_give_it(bounds: object) -> None:
    matrix = score_matrix(predictions(("3", "2.9"), ("3", "3.1"), ("3", "9")), bounds)
    assert matrix is not None
    assert matrix.names[0] == "2.5 to 2.7"
    assert matrix.counts.total() == 3


def test_without_a_number_there_are_no_buckets() -> None:
    assert score_matrix(predictions(("a", "b"), ("1", "inf")), [0, 5]) is None


def test_very_many_classes_take_no_square_of_memory() -> None:
    found = Predictions(Counter((f"{index}", f"{index + 1}") for index in range(50_000)))
    matrix = class_matrix(found, None)
    assert len(matrix.names) == 50_001
    assert len(matrix.confusions) == MAX_CONFUSIONS
