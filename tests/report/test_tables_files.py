import csv
import io
from pathlib import Path

import pytest
from fake_runs import PARA, STS, fabricate

from manyhead.errors import WriteError
from manyhead.report.artifacts import write_figures, write_tables
from manyhead.report.content import Report, gather_report
from manyhead.report.tables import Table, tables_of


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return gather_report([fabricate(tmp_path_factory.mktemp("runs") / "run", [PARA, STS])])


def test_csv_has_all_digits_and_latex_three() -> None:
    table = Table(["t"], ("name", "n", "score"), [["a", 3, 1 / 3], ["b", 4, None], ["c", 5, -0.5]])
    assert table.csv() == "name,n,score\na,3,0.3333333333333333\nb,4,\nc,5,-0.5\n"
    assert table.latex() == (
        "\\begin{tabular}{lrr}\n\\toprule\nname & n & score \\\\\n\\midrule\na & 3 & 0.333 \\\\\nb & 4 & -- \\\\\n"
        "c & 5 & $-$0.500 \\\\\n\\bottomrule\n\\end{tabular}\n"
    )


def test_latex_escapes_what_it_would_read_as_commands() -> None:
    line = Table(["t"], ("a&b",), [["50 % of $x_1$ {~} \\input{/etc} #^<|>\u202e"]]).latex()
    for escaped in ("a\\&b", "50 \\% of \\$x\\_1\\$ \\{\\textasciitilde{}\\} \\textbackslash{}input\\{/etc\\}"):
        assert escaped in line
    assert "\u202e" not in line


def test_tables_hold_what_the_page_says(report: Report) -> None:
    tables = {"-".join(table.name): table for table in tables_of(report)}
    assert {"scores", "para-metrics", "para-confusion", "para-slices", "sts-confusion"} <= tables.keys()
    rows = list(csv.DictReader(io.StringIO(tables["scores"].csv())))
    assert [row["task"] for row in rows] == ["para", "sts", "overall", "overall_raw"]
    assert float(rows[0]["score"]) == report.runs[0].tasks[0].primary.value
    assert float(rows[0]["low"]) < float(rows[0]["score"]) < float(rows[0]["high"])
    assert sum(cell for row in tables["para-confusion"].rows for cell in row[1:] if isinstance(cell, int)) == PARA.rows


def test_files_have_names_that_differ_and_stay_in_the_folder(report: Report, tmp_path: Path) -> None:
    tables = write_tables(report, tmp_path / "tables")
    figures = write_figures(report, tmp_path / "figures")
    for paths, folder, endings in ((tables, "tables", {".csv", ".tex"}), (figures, "figures", {".png", ".svg"})):
        assert {path.parent for path in paths} == {tmp_path / folder}
        assert len({path.name.lower() for path in paths}) == len(paths)
        assert {path.suffix for path in paths} == endings
        assert all(path.stat().st_size > 0 for path in paths)


def test_a_folder_that_cannot_be_is_a_write_error(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError):
        write_tables(report, tmp_path / "file" / "tables")
