"""``manyhead predict``: all rows, in order, with their ids, from files and pipes of any format."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import COMMAND, document, run
from hypothesis import given, settings
from hypothesis import strategies as st

from manyhead.inference.bulk import scorer
from tiny import SAMPLE

REVIEWS = ["prediction", "label", *(f"probability_{name}" for name in ("awful", "poor", "mixed", "good", "excellent"))]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def as_csv(*rows: tuple[object, ...]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)
    return file.getvalue()


def test_a_file_keeps_its_columns_and_gets_the_predicted_ones(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    result = run("predict", trained, "--task", "reviews", "--input", SAMPLE / "reviews.dev.csv", "--output", out)
    assert result.stdout == ""
    before, after = rows_of((SAMPLE / "reviews.dev.csv").read_text()), rows_of(out.read_text())
    assert list(after[0]) == ["id", "text", "grade", *REVIEWS, "truncated"]
    assert [{key: row[key] for key in ("id", "text", "grade")} for row in after] == before
    for row in after:
        found = {name: float(row[name]) for name in REVIEWS[2:]}
        assert sum(found.values()) == pytest.approx(1, abs=1e-5)
        assert f"probability_{row['label']}" == max(found, key=lambda name: found[name])
        assert row["prediction"] in "01234"
        assert row["truncated"] in "01"


def test_a_quoted_line_break_is_part_of_its_row(trained: Path, tmp_path: Path) -> None:
    text = as_csv(("id", "text"), ("1", "Nice room\nbut loud, really"), ("2", "x"))
    path = tmp_path / "a.csv"
    path.write_text(text, newline="")
    for words, stdin in ((("--input", path), None), ((), text)):
        found = rows_of(run("predict", trained, "--task", "reviews", *words, stdin=stdin).stdout)
        assert [(row["id"], row["text"]) for row in found] == [("1", "Nice room\nbut loud, really"), ("2", "x")]


def test_predictions_are_those_of_the_run(trained: Path) -> None:
    """The same rows got the same values when the run scored its dev split."""
    text = "".join((SAMPLE / "sentences.dev.csv").read_text().splitlines(keepends=True)[:13])
    found = rows_of(run("predict", trained, "--task", "sentences", stdin=text).stdout)
    stored = rows_of((trained / "predictions/sentences.dev.csv").read_text())
    assert [row["id"] for row in found] == [row["id"] for row in stored]
    assert [float(row["prediction"]) for row in found] == pytest.approx(
        [float(row["prediction"]) for row in stored], abs=1e-5
    )


def test_every_format_and_the_pipe_give_the_same(trained: Path, tmp_path: Path) -> None:
    rows = rows_of((SAMPLE / "questions.dev.csv").read_text())[:9]
    jsonl = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(jsonl)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with (tmp_path / "a.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows(row.values() for row in rows)
    words = ("predict", trained, "--task", "questions")
    expected = run(*words, stdin=as_csv(tuple(rows[0]), *(tuple(row.values()) for row in rows))).stdout
    assert len(rows_of(expected)) == 9
    assert run(*words, "--input", "-", stdin=jsonl).stdout == expected
    assert run(*words, stdin=(tmp_path / "a.tsv").read_bytes()).stdout == expected
    for name in ("a.jsonl", "a.parquet", "a.tsv"):
        assert run(*words, "--input", tmp_path / name).stdout == expected


def test_jsonl_and_json_hold_the_same(trained: Path, tmp_path: Path) -> None:
    text = as_csv(("id", "text"), ("a", "Fine."), ("b", "Bad."))
    words = ("predict", trained, "--task", "reviews")
    lines = [json.loads(line) for line in run(*words, "--format", "jsonl", stdin=text).stdout.splitlines()]
    assert [line["id"] for line in lines] == ["a", "b"]
    assert isinstance(lines[0]["truncated"], bool)
    found = document(*words, stdin=text)
    assert (found["task"], found["rows"], found["output"]) == ("reviews", 2, None)
    assert found["predictions"] == lines
    found = document(*words, "--output", tmp_path / "o.jsonl", stdin=text)
    assert "predictions" not in found
    assert [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()] == lines


BAD = [
    ("id", "text"),
    ("a", "A fine day."),
    ("b", ""),
    ("c", "   "),
    ("d",),
    ("e", "one", "cell too many"),
    ("f", "A fine day."),
    ("g", 'quotes " and\nlines'),
]


def test_bad_rows_keep_their_place_and_harm_no_neighbour(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(as_csv(*BAD))
    for words, stdin, name in ((("--input", path), None, path), ((), as_csv(*BAD), "stdin")):
        result = run("predict", trained, "--task", "reviews", *words, stdin=stdin)
        rows = rows_of(result.stdout)
        assert [row["id"] for row in rows] == list("abcdefg")
        assert [row["id"] for row in rows if not row["prediction"]] == ["d", "e"]
        assert f"{name}:5: 1 cell instead of 2" in result.stderr
        assert f"{name}:6: 3 cells instead of 2" in result.stderr
        assert {**rows[0], "id": "f"} == rows[5]


def test_gaps_and_broken_lines_of_json_keep_their_place(trained: Path) -> None:
    lines = [
        {"id": 1, "text": "Fine."},
        {"id": 2, "text": None},
        {"id": 3},
        {"id": 4, "text": ["x"]},
        {"id": 5, "text": 7},
    ]
    text = "\n".join([*map(json.dumps, lines), "{broken", "", '{"id": 6, "text": "\\ud800 half", "late": 1}'])
    result = run("predict", trained, "--task", "reviews", "--format", "jsonl", stdin=text)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5, None, 6]
    assert [row["prediction"] is None for row in rows] == [False, True, True, True, False, True, False]
    assert [row["label"] is None for row in rows] == [row["prediction"] is None for row in rows]
    assert "stdin:6: not valid JSON" in result.stderr
    assert "U+FFFD" in result.stderr


def test_bytes_that_are_not_utf8_are_replaced_and_told(trained: Path) -> None:
    result = run("predict", trained, "--task", "reviews", stdin=b"id,text\n1,caf\xe9\n2,fine\n")
    assert [row["text"] for row in rows_of(result.stdout)] == ["caf\ufffd", "fine"]
    assert "1 broken characters" in result.stderr
    latin = run(
        "predict", trained, "--task", "reviews", "--set", "tasks.reviews.charset=latin-1", stdin=b"text\ncaf\xe9\n"
    )
    assert rows_of(latin.stdout)[0]["text"] == "caf\xe9"


def test_the_course_format(trained: Path, tmp_path: Path) -> None:
    titles = {
        "reviews": "Predicted_Sentiment",
        "questions": "Predicted_Is_Paraphrase",
        "sentences": "Predicted_Similiary",
    }
    for task, title in titles.items():
        out = tmp_path / f"{task}.csv"
        run(
            "predict",
            trained,
            "--task",
            task,
            "--input",
            SAMPLE / f"{task}.dev.csv",
            "--format",
            "cs224n",
            "--output",
            out,
        )
        lines = out.read_text().splitlines()
        assert lines[0] == f"id \t {title} "
        ids = [row["id"] for row in rows_of((SAMPLE / f"{task}.dev.csv").read_text())]
        assert all(re.fullmatch(r"\S+ , -?[\d.]+ ", line) for line in lines[1:])
        assert [line.split(" , ")[0] for line in lines[1:]] == ids
    run("predict", trained, "--task", "reviews", "--format", "cs224n", stdin="id,text\n1\n", code=2)


@pytest.mark.parametrize(
    ("stdin", "words", "expected"),
    [
        ("id,body\n1,x\n", (), "no column 'text'; expected one of each text column; there are: 'id', 'body'"),
        ("", (), "stdin is empty"),
        ("text\nx\n", ("--task", "nonsense"), "no task 'nonsense'"),
        ("text\nx\n", ("--input", "gone.csv"), "gone.csv"),
        ("text\nx\n", ("--output", "gone/out.csv"), "no folder gone; make it or choose another --output\n"),
        ("text\nx\n", ("--output", "."), "is a folder"),
        ("body\nx\n", ("--output", "gone/out.csv"), "no folder gone"),
    ],
)
def test_what_cannot_be_done_is_told(stdin: str, words: tuple[str, ...], expected: str, trained: Path) -> None:
    result = run("predict", trained, "--task", "reviews", *words, stdin=stdin, code=2)
    assert expected in result.stderr
    assert result.stdout == ""


def test_an_output_is_replaced_whole_or_not_at_all(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("old")
    run("predict", trained, "--task", "reviews", "--output", out, stdin="body\nx\n", code=2)
    assert out.read_text() == "old"
    run("predict", trained, "--task", "reviews", "--output", out, "--format", "cs224n", stdin="id,text\n1\n", code=2)
    assert out.read_text() == "old"
    run("predict", trained, "--task", "reviews", "--output", out, stdin="text\nx\n")
    assert len(rows_of(out.read_text())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_file_may_be_replaced_by_its_own_predictions(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\nfirst\nsecond\n")
    run("predict", trained, "--task", "reviews", "--input", path, "--output", path)
    assert [row["text"] for row in rows_of(path.read_text())] == ["first", "second"]


def test_the_course_format_wants_an_id_column(trained: Path) -> None:
    words = ("predict", trained, "--task", "reviews", "--format", "cs224n")
    text = as_csv(("key", "text"), ("a", "Fine."))
    result = run(*words, stdin=text, code=2)
    assert result.stdout == ""
    assert "stdin: no id column 'id'; expected one" in result.stderr
    assert "--set tasks.reviews.id=COLUMN" in result.stderr
    assert run(*words, "--set", "tasks.reviews.id=key", stdin=text).stdout.splitlines()[1].startswith("a , ")
    assert "2 id columns 'id'" in run(*words, stdin="id,id,text\n1,2,x\n", code=2).stderr


def test_columns_named_as_predicted_ones_are_kept(trained: Path) -> None:
    words = ("predict", trained, "--task", "reviews")
    text = as_csv(("text", "label", "truncated", "input_label"), ("Fine.", "mine", "cut", "other"))
    result = run(*words, stdin=text)
    (row,) = rows_of(result.stdout)
    assert list(row) == ["text", "input_2_label", "input_truncated", "input_label", *REVIEWS, "truncated"]
    assert (row["input_2_label"], row["input_truncated"], row["input_label"]) == ("mine", "cut", "other")
    assert result.stderr.splitlines() == [
        "stdin: columns named as what is predicted are kept by other names: "
        "'label' is now 'input_2_label', 'truncated' is now 'input_truncated'"
    ]
    lines = run(*words, "--format", "jsonl", stdin=text)
    assert lines.stderr == result.stderr
    found = json.loads(lines.stdout)
    assert list(found) == list(row)
    assert [found[name] for name in list(row)[:4]] == ["Fine.", "mine", "cut", "other"]
    assert document(*words, stdin=text)["predictions"] == [found]


def test_predictions_can_be_predicted_for_again(trained: Path) -> None:
    text = as_csv(("id", "text"), ("a", "Fine."))
    for times in range(3):
        text = run("predict", trained, "--task", "reviews", stdin=text).stdout
        assert len(next(csv.reader(io.StringIO(text)))) == 2 + (times + 1) * (len(REVIEWS) + 1)
    (row,) = rows_of(text)
    assert row["prediction"] == row["input_prediction"] == row["input_2_prediction"]


def test_a_text_column_may_be_named_as_a_predicted_one(trained: Path) -> None:
    words = ("predict", trained, "--task", "reviews")
    (expected,) = rows_of(run(*words, stdin="text\nFine.\n").stdout)
    stdin = '{"label": "Fine."}\n'
    (row,) = rows_of(run(*words, "--set", "tasks.reviews.text=[label]", stdin=stdin).stdout)
    assert row.pop("input_label") == expected.pop("text")
    assert row == expected


def test_cells_of_columns_of_one_name_are_all_kept(trained: Path) -> None:
    text = as_csv(("text", "a", "a", "a_2", "label", "label"), ("Fine.", "1", "2", "3", "4", "5"))
    words = ("predict", trained, "--task", "reviews")
    found = json.loads(run(*words, "--format", "jsonl", stdin=text).stdout)
    assert {**found, "a": "1", "a_3": "2", "a_2": "3", "input_label": "4", "input_2_label": "5"} == found
    names = next(csv.reader(io.StringIO(run(*words, stdin=text).stdout)))
    assert names[:6] == ["text", "a", "a", "a_2", "input_label", "input_2_label"]


def test_a_model_that_cannot_be_loaded_leaves_stdout_empty(trained: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(trained / "model", model)
    for path in model.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    out = tmp_path / "out.csv"
    out.write_text("old")
    for words in ((), ("--format", "jsonl"), ("--output", out)):
        result = run("predict", model, "--task", "reviews", *words, stdin="text\nx\n", code=4)
        assert result.stdout == ""
    assert out.read_text() == "old"


def test_the_help_says_which_rows_get_no_prediction(trained: Path) -> None:
    told = " ".join(run("predict", "--help").stdout.split())
    assert "one whose text is missing (null, or the row is broken) gets an empty prediction" in told
    assert "Empty texts are predicted." in told
    rows = rows_of(run("predict", trained, "--task", "reviews", stdin='id,text\n1,""\n').stdout)
    assert rows[0]["prediction"]


def test_a_header_alone_gives_a_header(trained: Path) -> None:
    assert run("predict", trained, "--task", "reviews", stdin="id,text\n").stdout == ",".join(
        ["id", "text", *REVIEWS, "truncated\n"]
    )


def test_a_pipe_is_answered_before_it_ends(trained: Path) -> None:
    words = [COMMAND, "predict", trained, "--task", "reviews"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("id,text\n" + "".join(f"{number},Fine.\n" for number in range(scorer.CHUNK_ROWS)))
        process.stdin.flush()
        assert process.stdout.readline().startswith("id,text,prediction")
        assert process.stdout.readline().startswith("0,Fine.,")
        process.stdin.write("last,Fine.\n")
        process.stdin.close()
        assert process.stdout.read().splitlines()[-1].startswith("last,")
    assert process.returncode == 0


def test_a_terminal_is_no_input(trained: Path) -> None:
    ours, theirs = os.openpty()
    words = [sys.executable, COMMAND, "predict", trained, "--task", "reviews"]
    done = subprocess.run(words, stdin=theirs, capture_output=True, text=True, check=False)
    os.close(theirs)
    os.close(ours)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--input" in done.stderr


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@settings(max_examples=15)
@given(rows=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8))
def test_any_cells_come_back_in_their_order(trained: Path, rows: list[tuple[str, str, str]]) -> None:
    text = as_csv(("sentence1", "note", "sentence2"), *rows)
    found = rows_of(run("predict", trained, "--task", "sentences", stdin=text).stdout)
    assert [(row["sentence1"], row["note"], row["sentence2"]) for row in found] == rows
    assert all(row["prediction"] for row in found)
    lines = "".join(json.dumps(dict(zip(("sentence1", "note", "sentence2"), row, strict=True))) + "\n" for row in rows)
    assert rows_of(run("predict", trained, "--task", "sentences", stdin=lines).stdout) == found
