from manyhead.report.matrix import MAX_CLASSES, MAX_CONFUSIONS, Matrix


def test_rows_give_shares_of_their_total() -> None:
    matrix = Matrix(["a", "b"], [[1, 3], [0, 0]])
    assert matrix.rows == [("a", 4, [(1, 0.25), (3, 0.75)]), ("b", 0, [(0, 0.0), (0, 0.0)])]
    assert matrix.confusions == [("a", "b", 3, 0.75)]
    assert matrix.is_small


def test_of_many_classes_the_commonest_mistakes_are_listed() -> None:
    size = 50
    counts = [[row if column == row - 1 else 0 for column in range(size)] for row in range(size)]
    matrix = Matrix([f"c{index}" for index in range(size)], counts)
    assert size > MAX_CLASSES
    assert not matrix.is_small
    assert len(matrix.confusions) == MAX_CONFUSIONS
    assert matrix.confusions[0] == ("c49", "c48", 49, 1.0)
