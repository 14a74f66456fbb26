"""Readers under fuzz: whatever bytes a file holds, it is refused as a whole with its name, or every line is accounted.

A line is the header's, blank, part of a row that came out, or rejected with its number and reason.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest
from fuzzed_files import FILES, File
from hostile import make_recipe, make_task, shown, tells_where
from hypothesis import HealthCheck, given, settings

from manyhead.data.check import check_data
from manyhead.data.delimited import DelimitedTable
from manyhead.data.examples import read_examples
from manyhead.data.read import read_table
from manyhead.data.table import SHOWN_REJECTS, Row, Table
from manyhead.errors import DataError

BLANK = ("", "\n", "\r\n", "\r")


def account_for(file: File, folder: Path) -> int:
    """Reads a file by all public ways and holds each to account; returns the rows used."""
    path = file.write(folder)
    task = make_task(**file.options)
    recipe = make_recipe(
        folder, t=task.model_copy(update={"files": task.files.model_copy(update={"train": file.name})})
    )
    report = check_data(recipe)
    rows: list[Row] = []
    try:
        table = read_table(path, **file.options)
        rows += table
    except DataError as error:
        tells_where(error, path)
        table = None
    if table is None:
        assert report.errors
        return 0
    every_line_counts(table, rows, file)
    cells = [*table.columns, *(cell for _, cells in rows for cell in cells)]
    assert all(cell == shown(cell) for cell in cells if isinstance(cell, str) and "columns" not in file.options)
    try:
        examples = read_examples("t", task, "train", path, seed=1)
        used = list(examples)
    except DataError as error:
        tells_where(error, path)
        return 0
    tally = examples.tally()
    assert (tally.used, tally.rows) == (len(used), len(rows) + table.rejects.total)
    assert all(reject.line >= 1 and reject.reason for reject in tally.rejects.first)
    assert all(text == shown(text) for example in used for text in (*example.texts, example.id))
    (split,) = report.splits
    assert (split.rows, split.used, split.rejected) == (tally.rows, tally.used, tally.rejects.total)
    return len(used)


def every_line_counts(table: Table, rows: Sequence[tuple[int, Sequence[object]]], file: File) -> None:
    """Whether used rows, rejected ones and the header make up all lines that are not blank, each once."""
    starts = sorted([line for line, _ in rows] + [reject.line for reject in table.rejects.first])
    assert [line for line, _ in rows] == sorted(line for line, _ in rows)
    assert len(starts) == len(set(starts))
    if table.rejects.total > SHOWN_REJECTS:
        return
    lines = file.lines()
    if not isinstance(table, DelimitedTable):
        assert starts == [number for number, line in enumerate(lines, 1) if not line.isspace()]
        return
    if table.layout.trusted:  # quotes are what they say: a record rejected for its number of cells may be of many lines
        return
    end = lines[0][-1]
    spans = {line: 1 + sum(str(cell).count(end) for cell in cells) for line, cells in rows}
    covered = [line for start in starts for line in range(start, start + spans.get(start, 1))]
    if "columns" not in file.options:
        header = next(number for number, line in enumerate(lines, 1) if line not in BLANK)
        covered += range(header, header + 1 + sum(name.count(end) for name in table.columns))
    assert len(covered) == len(set(covered))
    left = [lines[number - 1] for number in set(range(1, len(lines) + 1)) - set(covered)]
    assert all(line in BLANK for line in left)


@settings(max_examples=300)
@given(file=FILES)
def test_every_line_of_any_file_counts(file: File, tmp_path_factory: pytest.TempPathFactory) -> None:
    account_for(file, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@settings(max_examples=5000, suppress_health_check=[HealthCheck.too_slow])
@given(file=FILES)
def test_every_line_of_any_of_very_many_files_counts(file: File, tmp_path_factory: pytest.TempPathFactory) -> None:
    account_for(file, tmp_path_factory.getbasetemp())


def test_the_account_sees_a_lost_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the fuzz rests on: a reader that swallows a row, or blames another line, is caught."""
    file = File("a.csv", b'text,label\ngood,1\nbad\n"so ""so""",0\n', {})
    assert account_for(file, tmp_path) == 2
    table = read_table(file.write(tmp_path))
    rows = list(table)
    every_line_counts(table, rows, file)
    for wrong in (rows[:-1], rows[1:], [(line + 1, cells) for line, cells in rows]):
        with pytest.raises(AssertionError):
            every_line_counts(table, wrong, file)
    table.rejects.first.clear()
    with pytest.raises(AssertionError):
        every_line_counts(table, rows, file)
