"""Reading tables: formats, quoting by evidence, and files that mean harm."""

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_makers import write_jsonl, write_lines
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import ipc

from manyhead.data.delimited import Layout, Records
from manyhead.data.read import read_table
from manyhead.data.table import Cell, Nested, Table
from manyhead.errors import DataError

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('\t\r\n",;'), max_size=20)
ORDINARY = ["NA", "null", "None", "nan", "N/A", "NULL", "-", "0", "#hash", "'quoted'", "\\N", "true"]


def cells_of(table: Table) -> list[tuple[Cell, ...]]:
    return [cells for _, cells in table]


def write_csv(
    path: Path, rows: Sequence[Sequence[str]], delimiter: str, quoting: Literal[0, 1] = csv.QUOTE_MINIMAL
) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator="\r\n").writerows(rows)
    return path


@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=8),
    delimiter=st.sampled_from([(",", "csv"), ("\t", "tsv")]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_any_texts_come_back_from_csv(tmp_path_factory: pytest.TempPathFactory, rows, delimiter, quoting) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    write_csv(path, [("a", "b", "c"), *rows], delimiter[0], quoting)
    table = read_table(path, format=delimiter[1], quoting="csv")
    assert cells_of(table) == rows
    assert table.columns == ("a", "b", "c")
    assert table.rejects.total == 0


WORDS = st.sampled_from(["", "a", '"', 'b "c"', ", "])


def balanced(delimiter: str) -> st.SearchStrategy[tuple[str, ...]]:
    """Rows of three cells, each of whose physical lines holds as many separators as a whole record."""
    ends = st.tuples(WORDS, WORDS).map(delimiter.join)
    inner = st.lists(st.tuples(WORDS, WORDS, WORDS).map(delimiter.join), max_size=3)
    cell = st.tuples(ends, inner, ends).map(lambda parts: "\n".join([parts[0], *parts[1], parts[2]]))
    return st.tuples(st.sampled_from(["x", ""]), cell, st.sampled_from(["y", ""]))


@given(
    data=st.data(),
    delimiter=st.sampled_from([(",", "csv"), (",", "auto"), (";", "auto")]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_any_texts_come_back_between_commas_unasked(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, delimiter, quoting
) -> None:
    plain = st.just(("one", "two", "three"))
    rows = data.draw(st.lists(st.tuples(TEXTS, TEXTS, TEXTS) | balanced(delimiter[0]) | plain, max_size=8))
    path = write_csv(tmp_path_factory.mktemp("csv") / "a.csv", [("a", "b", "c"), *rows], delimiter[0], quoting)
    table = read_table(path, format=delimiter[1])
    assert cells_of(table) == rows
    assert (table.rejects.total, table.stray_quotes) == (0, 0)


@given(rows=st.lists(st.tuples(*[TEXTS.filter(lambda t: "\t" not in t and "\n" not in t)] * 2), max_size=8))
def test_any_texts_come_back_unquoted(tmp_path_factory: pytest.TempPathFactory, rows) -> None:
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    path.write_bytes("".join(f"{first}\t{second}|\r\n" for first, second in [("a", "b"), *rows]).encode())
    assert cells_of(read_table(path, format="tsv", quoting="none")) == [(a, f"{b}|") for a, b in rows]


@given(lines=st.lists(st.text('ab"\t\r', max_size=8), max_size=12), quotes=st.sampled_from(["csv", "none"]))
def test_no_line_is_lost(lines: list[str], quotes) -> None:
    lines = [f"{line}\n" for line in lines]
    records = Records(lines, Layout("\t", quotes), 2)
    read = [records.text for _ in records.read()]
    assert "".join(read) == "".join(line for line in lines if line not in ("\n", "\r\n"))


@given(lines=st.lists(st.text('ab"\t', max_size=8), max_size=12))
def test_records_name_the_lines_they_start_at(lines: list[str]) -> None:
    records = Records([f"{line}\n" for line in lines], Layout("\t", "csv"), 2)
    for number, _ in records.read():
        assert records.text.startswith(lines[number - 1])


def test_unquoted_files_keep_all_rows_and_words(tmp_path: Path) -> None:
    texts = [*ORDINARY, '"an opened quote', 'a "quoted" word', '"Yes" he said', 'closed"']
    path = write_lines(tmp_path / "glue.tsv", "text\tlabel", *(f"{text}\t1" for text in texts))
    table = read_table(path)
    assert [text for text, _ in cells_of(table)] == texts
    assert table.note == "tab-separated, unquoted"


def test_csv_quoting_is_found_between_tabs(tmp_path: Path) -> None:
    rows = [("text", "label"), ('he said "no"', "1"), ("plain", "0"), ("two\nlines", "1"), ("a\ttab", "0")]
    table = read_table(write_csv(tmp_path / "a.csv", rows, "\t"))
    assert cells_of(table) == rows[1:]
    assert [line for line, _ in table] == [2, 3, 4, 6]
    assert table.note == "tab-separated, CSV quoting"


def test_a_quoted_line_break_never_splits_a_record_between_commas(tmp_path: Path) -> None:
    rows = [("id", "text"), ("1", "Nice room\nbut loud, really"), ("2", "x")]
    table = read_table(write_csv(tmp_path / "a.csv", rows, ","))
    assert list(table) == [(2, rows[1]), (4, rows[2])]
    assert (table.note, table.stray_quotes) == ("comma-separated, CSV quoting", 0)


def test_doubled_quotes_make_one_record_of_whole_lines_between_tabs() -> None:
    lines = ['1\ta "b"\n', '2\t"one\n', 'two ""2""\tx"\n', '3\t"one\n', 'two\tx"\n']
    read = list(Records(lines, Layout("\t", "csv"), 2).read())
    assert read[1:] == [(2, ["2", 'one\ntwo "2"\tx']), (4, ["3", '"one']), (5, ["two", 'x"'])]


@pytest.mark.parametrize("filler", ["1,plain\n", '1,"plain"\n'])
def test_the_end_of_the_sample_inside_a_record_proves_nothing(tmp_path: Path, filler: str) -> None:
    text = "\n".join(["one, two", *['a "quoted" word'] * 20_000])
    path = tmp_path / "a.csv"
    quoted = text.replace('"', '""')
    path.write_text("id,text\n" + filler * (3_900_000 // len(filler)) + f'2,"{quoted}"\n', encoding="utf-8")
    table = read_table(path)
    assert table.note == "comma-separated, CSV quoting"
    assert cells_of(table)[-1] == ("2", text)


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
def test_separators_are_found_whatever_the_texts_hold(tmp_path: Path, delimiter: str) -> None:
    rows = [("text", "other", "label"), *[("one, two; three", "a, b, c", str(i)) for i in range(5)]]
    table = read_table(write_csv(tmp_path / "a.txt", rows, delimiter))
    assert cells_of(table) == rows[1:]


def test_stray_quotes_after_the_evidence_swallow_nothing() -> None:
    good = ['"a ""b"" c"\t1\n'] * 50
    rows = [*good, '"opened\t0\n', "plain\t1\n", 'closed"\t0\n', *good, '"Yes" he said\t1\n', '"at the end\t0\n']
    records = Records(rows, Layout("\t", "csv"), 2)
    read = list(records.read())
    assert [line for line, _ in read] == list(range(1, len(rows) + 1))
    assert read[50:53] == [(51, ['"opened', "0"]), (52, ["plain", "1"]), (53, ['closed"', "0"])]
    assert read[-1] == (len(rows), ['"at the end', "0"])
    assert records.stray_quotes == 3


def test_trusted_quoting_rejects_stray_quotes(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.tsv", "a\tb", "x\t1", '"opened\t2', "y\t3", '"z" z\t4', "w\t5")
    table = read_table(path, format="tsv", quoting="csv")
    assert cells_of(table) == [("x", "1"), ("y", "3"), ("w", "5")]
    assert [reject.line for reject in table.rejects.first] == [3, 5]


def test_ragged_rows_do_not_shift_their_neighbours(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.csv", "a,b,c", "1,2,3", "1,2", "", "4,5,6", "1,2,3,4", "7,8,9")
    table = read_table(path)
    assert list(table) == [(2, ("1", "2", "3")), (5, ("4", "5", "6")), (7, ("7", "8", "9"))]
    assert table.rejects.counts == {"2 cells instead of 3": 1, "4 cells instead of 3": 1}
    assert [reject.line for reject in table.rejects.first] == [3, 6]


def test_one_column_needs_no_separator(tmp_path: Path) -> None:
    lines = ["Hello, you", "What; a day", 'He said "no"', ""]
    path = write_lines(tmp_path / "a.txt", "text", *lines)
    assert [cell for (cell,) in cells_of(read_table(path))] == lines


def test_columns_name_a_file_without_header(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.tsv", "good film\t1", "bad film\t0")
    table = read_table(path, columns=["text", "label"])
    assert list(table) == [(1, ("good film", "1")), (2, ("bad film", "0"))]


def test_selected_columns_come_in_the_order_asked_for(tmp_path: Path) -> None:
    table = read_table(write_lines(tmp_path / "a.csv", "a,b,c", "1,2,3"))
    assert list(table.select(["c", "a"])) == [(2, ("3", "1"))]
    assert list(table.select(["b"])) == [(2, ("2",))]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
@pytest.mark.parametrize("packed", [False, True])
def test_charsets_line_ends_and_gzip(tmp_path: Path, end: str, charset: str, packed: bool) -> None:
    rows = [("text", "label"), ("café", "1"), ("naïve, no?", "0")]
    content = end.join("\t".join(row) for row in rows).encode(charset)
    path = tmp_path / ("a.tsv.gz" if packed else "a.tsv")
    path.write_bytes(gzip.compress(content) if packed else content)
    is_marked = charset in ("utf-8", "utf-8-sig", "utf-16", "utf-32")
    table = read_table(path, charset="utf-8" if is_marked else charset)
    assert table.columns == rows[0]
    assert cells_of(table) == rows[1:]


def test_a_lone_cr_is_part_of_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'text,label\n"one\rtwo",1\n"x ""y""",0\n')
    assert cells_of(read_table(path)) == [("one\rtwo", "1"), ('x "y"', "0")]


def test_nul_characters_and_huge_cells(tmp_path: Path) -> None:
    huge = "word " * 300_000
    rows = [("text", "label"), ("a\0b", "1"), (huge, "0"), (f'"{huge}', "1")]
    assert cells_of(read_table(write_csv(tmp_path / "a.csv", rows, ","))) == rows[1:]


def test_lone_surrogates_are_replaced_and_counted(tmp_path: Path) -> None:
    jsonl = write_jsonl(tmp_path / "a.jsonl", [{"text": "a\ud800b"}, {"text": "fine"}, {"text": "\udfff\udfff"}])
    tsv = tmp_path / "a.tsv"
    tsv.write_bytes("text\tx\na\ud800b\t1\nfine\t2\n\udfff\udfff\t3\n".encode("utf-8", "surrogatepass"))
    for table in (read_table(jsonl), read_table(tsv)):
        assert [cells[0] for cells in cells_of(table)] == ["a\ufffdb", "fine", "\ufffd\ufffd"]
        assert table.replaced == 3


def test_iterating_again_counts_anew(tmp_path: Path) -> None:
    table = read_table(write_lines(tmp_path / "a.csv", "a,b", "1,2", "3"))
    for _ in range(2):
        assert len(cells_of(table)) == 1
        assert table.rejects.total == 1


def test_json_lines_keep_types_and_gaps(tmp_path: Path) -> None:
    rows = [{"t": "x", "n": 1}, {"n": 2.5, "t": "y", "b": True}, {"t": None}, {"t": ["a", {"b": "ü"}]}]
    table = read_table(write_jsonl(tmp_path / "data", rows))
    assert table.columns == ("t", "n", "b")
    assert cells_of(table)[:3] == [("x", 1, None), ("y", 2.5, True), (None, None, None)]
    nested = cells_of(table)[3][0]
    assert isinstance(nested, Nested)
    assert json.loads(nested) == ["a", {"b": "ü"}]


def test_bad_json_lines_are_rejected_alone(tmp_path: Path) -> None:
    lines = ['{"t": 1}', "{", "[1]", "", "7", "[" * 100_000, '{"t": ' + "9" * 5000 + "}", '{"t": 2}']
    table = read_table(write_lines(tmp_path / "a.jsonl", *lines))
    assert list(table) == [(1, (1,)), (8, (2,))]
    assert table.rejects.counts == {"not valid JSON": 3, "not a JSON object": 2}


def write_columnar(path: Path, table: pa.Table, kind: str) -> Path:
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        new = ipc.new_file if kind == "arrow file" else ipc.new_stream
        with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    return path


@pytest.mark.parametrize("kind", ["parquet", "arrow file", "arrow stream"])
def test_columnar_files(tmp_path: Path, kind: str) -> None:
    table = pa.table(
        {
            "a.b": ["x", None, "z", "w"],
            "n": [1, 2, None, 4],
            "f": [0.5, None, 2.0, 3.0],
            "flag": [True, False, None, True],
            "list": [[1], None, [], [2, 3]],
            "cat": pa.array(["p", "q", "p", None]).dictionary_encode(),
            "bytes": [b"caf\xc3\xa9", b"\xff", None, b""],
        }
    )
    read = read_table(write_columnar(tmp_path / "data", table, kind))
    assert read.columns == tuple(table.column_names)
    first, second, *_ = read
    assert first == (1, ("x", 1, 0.5, True, "[1]", "p", "café"))
    assert second == (2, (None, 2, None, False, None, "q", "\ufffd"))
    assert list(read.select(["cat", "a.b"]))[2:] == [(3, ("p", "z")), (4, (None, "w"))]
    assert isinstance(cells_of(read)[3][4], Nested)


def test_many_columnar_rows_keep_their_numbers(tmp_path: Path) -> None:
    path = write_columnar(tmp_path / "a.parquet", pa.table({"n": range(10_000)}), "parquet")
    assert list(read_table(path)) == [(i + 1, (i,)) for i in range(10_000)]


def test_columns_of_one_name_keep_their_cells(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array(["x"]), pa.array([1]), pa.array(["y"])], names=["a", "b", "a"])
    for kind in ("parquet", "arrow file"):
        table = read_table(write_columnar(tmp_path / kind[:3], twice, kind))
        assert cells_of(table) == [("x", 1, "y")]
        assert list(table.select(["b"])) == [(1, (1,))]
        with pytest.raises(DataError, match="2 columns 'a'"):
            table.select(["a"])


def test_values_that_python_has_not_are_text_and_harm_no_neighbour(tmp_path: Path) -> None:
    broken = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffa"))
    table = pa.table(
        {
            "text": ["one", "two"],
            "far": pa.array([2**62, 0], pa.timestamp("s")),
            "nested": pa.ListArray.from_arrays([0, 1, 2], broken),
            "zone": pa.array([0, 0], pa.timestamp("s", tz="No/Where")),
            "fixed": pa.array([b"abc", b"\xffbc"], pa.binary(3)),
            "view": pa.array([b"abc", b"d"], pa.binary_view()),
        }
    )
    read = read_table(write_columnar(tmp_path / "a", table, "arrow file"))
    first, second = cells_of(read)
    assert (first[0], second[0]) == ("one", "two")
    assert (str(second[1]), second[2]) == ("1970-01-01 00:00:00", '["a"]')
    assert (first[4], second[4], first[5]) == ("abc", "\ufffdbc", "abc")
    assert isinstance(first[2], Nested)
    assert all(isinstance(cell, str) for cell in first)


def test_a_key_that_stands_twice_is_a_bad_line(tmp_path: Path) -> None:
    lines = ['{"t": "x", "n": 1}', '{"t": "a", "t": "b"}', '{"t": "y", "n": {"k": 1, "k": 2}}', '{"t": "z", "n": 2}']
    table = read_table(write_lines(tmp_path / "a.jsonl", *lines))
    assert list(table) == [(1, ("x", 1)), (4, ("z", 2))]
    assert [reject.reason for reject in table.rejects.first] == ["the key 't' stands twice", "the key 'k' stands twice"]


def test_surrogates_in_names_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("a\ud800,b\n1,2\n".encode("utf-8", "surrogatepass"))
    write_jsonl(tmp_path / "a.jsonl", [{"a\ud800": "1", "b": "2"}])
    for name in ("a.csv", "a.jsonl"):
        table = read_table(tmp_path / name)
        assert (table.columns, cells_of(table)) == (("a\ufffd", "b"), [("1", "2")])


def test_the_header_is_no_row_whatever_stands_before_it(tmp_path: Path) -> None:
    table = read_table(write_lines(tmp_path / "a.csv", "", "", "text", "x", "", "y"))
    assert list(table) == [(4, ("x",)), (5, ("",)), (6, ("y",))]


def test_a_long_first_line_may_hold_a_carriage_return(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"a\r" + b"x" * 100_000 + b"\t1\ngood\t0\n")
    assert [(len(str(text)), label) for text, label in cells_of(read_table(path, columns=["t", "l"]))] == [
        (100_002, "1"),
        (4, "0"),
    ]


def test_one_stray_quote_leaves_a_quoted_table_quoted(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.tsv", '"text"\tlabel', *['"good film"\t1'] * 5, '"Yes" he said\t1', '"bad"\t0')
    table = read_table(path)
    assert cells_of(table) == [*[("good film", "1")] * 5, ('"Yes" he said', "1"), ("bad", "0")]
    assert table.stray_quotes == 1


PROBLEMS = [
    ("empty.csv", b"", {}, "the file is empty"),
    ("blank.csv", b"\n\r\n\n", {}, "no rows"),
    ("binary.csv", bytes(range(32)) * 100, {}, "not a text file"),
    ("sheet.csv", b"PK\x03\x04" + b"x" * 100, {}, "a zip archive"),
    ("wide.csv", "text,label\ngood,1\n".encode("utf-16-le"), {}, "charset: utf-16-le"),
    ("latin.csv", "text,label\ngood,1\ncafé,1\n".encode("latin-1"), {}, "latin.csv:3: byte 0xe9 is not valid utf-8"),
    ("x.csv", b"a,b\n1,2\n", {"charset": "latn-1"}, "no charset 'latn-1'"),
    ("x.csv", b"a,b\n1,2\n", {"charset": "base64"}, "no charset 'base64'"),
    ("x.csv", b"a,b\n1,2\n", {"charset": "undefined"}, "no charset 'undefined'"),
    ("x.csv", b"a,b\n1,2\n", {"charset": "utf-8\0"}, "no charset 'utf-8"),
    ("x.csv", b"a,b\n\xff,2\n", {"charset": "idna"}, "not valid idna"),
    ("x.csv", b"a,b\n1,2\n", {"charset": "utf-16"}, "not valid utf-16"),
    ("x.csv", b"a,b\r1,2\r3,4\n5,6\n", {}, "x.csv:1: the header holds a carriage return"),
    ("x.csv", b"a,b\n1,2\n", {"format": "parquet"}, "not in format parquet"),
    ("x.jsonl", b'{"a": 1}\n', {"columns": ["a"]}, "columns is for CSV"),
    ("x.json", b'[{"a": 1}]\n', {}, "one JSON array"),
    ("x.jsonl", b"{\n", {}, "x.jsonl:1: not valid JSON"),
    ("x.jsonl", b"\n", {}, "no rows"),
    ("x.parquet", b"PAR1" + b"x" * 50, {}, "damaged file"),
    ("x.arrow", b"ARROW1" + b"x" * 50, {}, "damaged file"),
    ("x.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], {}, "damaged gzip"),
]


@pytest.mark.parametrize(("name", "content", "options", "message"), PROBLEMS)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, options, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(read_table(path, **options))
    assert str(path) in str(caught.value)


def test_bad_bytes_far_into_a_file_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"one,two\n" * 600_000 + b"caf\xe9,1\n"))
    with pytest.raises(DataError, match=r"a\.csv\.gz:600002: .*charset: latin-1"):
        list(read_table(path))


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.csv", "a")
    with pytest.raises(DataError, match=r"are: train.csv; did you mean 'train.csv'\?"):
        read_table(tmp_path / "trian.csv")
    with pytest.raises(DataError, match="there is no folder"):
        read_table(tmp_path / "nowhere" / "train.csv")


def test_missing_and_double_columns(tmp_path: Path) -> None:
    table = read_table(write_lines(tmp_path / "a.csv", "text,x,x", "a,b,c"))
    assert cells_of(table) == [("a", "b", "c")]
    with pytest.raises(DataError) as caught:
        table.select(["txt", "x"])
    missing, double = caught.value.problems
    assert "no column 'txt'" in str(missing)
    assert "did you mean 'text'?" in str(missing)
    assert "2 columns 'x'" in str(double)


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("a,b\n" + "some words,1\n" * 1_000_000)
    lines = iter(read_table(path))
    assert next(lines) == (2, ("some words", "1"))


def test_unread_rest_is_closed(tmp_path: Path) -> None:
    rows = io.StringIO("".join(f"{i},{i}\n" for i in range(100)))
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + rows.getvalue(), encoding="utf-8")
    for _, (first, _) in read_table(path):
        if first == "5":
            break
    path.unlink()
