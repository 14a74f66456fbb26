"""``manyhead predict`` on files: several tasks at once, folders, every format, rows listed apart, what goes wrong."""

import csv
import errno
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from commands import document, run

from manyhead.data import delimited, text
from manyhead.faults import injected
from manyhead.inference.bulk import scorer
from tiny import SAMPLE

ROWS: list[dict[str, Any]] = [
    {"id": n, "text": f"text {n}, fine", "question1": "how", "question2": f"what {n}"} for n in range(7)
]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "CHUNK_ROWS", 3)


def rows_of(text: str, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


def as_csv(rows: list[dict[str, Any]]) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def test_several_tasks_in_one_pass_are_each_task_alone(trained: Path) -> None:
    rows, tasks = as_csv(ROWS), ("reviews", "questions")
    alone = {task: rows_of(run("predict", trained, "--task", task, stdin=rows).stdout) for task in tasks}
    for words in (("--task", "reviews", "--task", "questions"), (), ("--task", "all")):
        found = rows_of(run("predict", trained, *words, stdin=rows).stdout)
        assert list(found[0])[:4] == list(ROWS[0])
        assert not any(name.startswith("sentences") for name in found[0])
        for task in tasks:
            for row, expected in zip(found, alone[task], strict=True):
                for name in expected.keys() - ROWS[0].keys():
                    assert same(row[f"{task}_{name}"], expected[name]), name


def same(one: str, other: str) -> bool:
    try:
        return float(one) == pytest.approx(float(other), abs=1e-5)
    except ValueError:
        return one == other


def test_all_is_one_task_where_the_columns_are_of_one(trained: Path) -> None:
    words = ("predict", trained, "--input", SAMPLE / "reviews.dev.csv")
    assert run(*words).stdout == run(*words, "--task", "reviews").stdout
    found = document(*words)
    assert (found["task"], found["tasks"]) == ("reviews", ["reviews"])
    refused = run("predict", trained, stdin="a,b\n1,2\n", code=2).stderr
    assert "no task reads these columns" in refused
    assert "reviews: 'text'; questions: 'question1', 'question2'" in refused


def test_every_output_format_holds_the_same(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(as_csv(ROWS))
    for name in ("o.csv", "o.tsv", "o.jsonl", "o.parquet", "o.csv.gz", "o.jsonl.gz"):
        run("predict", trained, "--input", tmp_path / "in.csv", "--output", tmp_path / name)
    expected = rows_of((tmp_path / "o.csv").read_text())
    assert len(expected) == len(ROWS)
    assert rows_of((tmp_path / "o.tsv").read_text(), "\t") == expected
    assert gzip.decompress((tmp_path / "o.csv.gz").read_bytes()) == (tmp_path / "o.csv").read_bytes()
    assert gzip.decompress((tmp_path / "o.jsonl.gz").read_bytes()) == (tmp_path / "o.jsonl").read_bytes()
    objects = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert pq.read_table(tmp_path / "o.parquet").to_pylist() == objects
    plain = [
        {name: str(int(cell)) if isinstance(cell, bool) else str(cell) for name, cell in row.items()} for row in objects
    ]
    assert plain == expected


def test_parquet_has_one_type_a_column_whatever_comes_late(trained: Path, tmp_path: Path) -> None:
    cells: dict[str, list[Any]] = {
        "whole": [1, 2, 3, 4, None],
        "number": [1, 2, 3, 4.5, 5],
        "flag": [True, None, False, True, True],
        "mixed": [1, 2, 3, "x", True],
        "late": [None, None, None, None, "word"],
        "huge": [1, 2**70, 3, 4, 5],
        "nested": [[1], {"a": 2}, None, [], "x"],
        "empty": [None] * 5,
    }
    lines = [{"text": "t", **{name: column[n] for name, column in cells.items()}} for n in range(5)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    run("predict", trained, "--output", tmp_path / "o.parquet", stdin=text)
    found = pq.read_table(tmp_path / "o.parquet")
    assert found["whole"].to_pylist() == cells["whole"]
    assert found["number"].to_pylist() == cells["number"]
    assert found["number"].type == pa.float64()
    assert found["flag"].to_pylist() == cells["flag"]
    assert found["mixed"].to_pylist() == ["1", "2", "3", "x", "true"]
    assert found["late"].to_pylist() == cells["late"]
    assert found["huge"].to_pylist() == ["1", str(2**70), "3", "4", "5"]
    assert found["nested"].to_pylist() == ["[1]", '{"a": 2}', None, "[]", "x"]
    assert found["empty"].to_pylist() == cells["empty"]
    assert None not in found["prediction"].to_pylist()


def test_a_folder_of_files_of_any_format(trained: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.csv").write_text(as_csv(ROWS[:4]))
    with gzip.open(source / "b.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS)
    pq.write_table(pa.Table.from_pylist(ROWS), source / "c.parquet")
    (source / "_SUCCESS").touch()
    out = tmp_path / "out"
    words = ("predict", trained, "--task", "reviews", "--input", source)
    done = run(*words, "--output", out)
    assert "18 rows predicted" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["a.csv", "b.jsonl.gz", "c.parquet"]
    jsonl = [json.loads(line) for line in gzip.decompress((out / "b.jsonl.gz").read_bytes()).splitlines()]
    assert pq.read_table(out / "c.parquet").to_pylist() == jsonl
    assert [row["id"] for row in jsonl] == list(range(7))
    assert [float(row["prediction"]) for row in rows_of((out / "a.csv").read_text())] == [
        row["prediction"] for row in jsonl[:4]
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert "the folder is not empty" in run(*words, "--output", out, code=2).stderr
    assert "expected --output FOLDER" in run(*words, code=2).stderr
    assert "is in the folder of the input" in run(*words, "--output", source / "out", code=2).stderr
    feather.write_feather(pa.Table.from_pylist(ROWS), source / "d.arrow")
    assert "no format has this ending" in run(*words, "--output", tmp_path / "more", code=2).stderr
    run(*words, "--output", tmp_path / "more", "--format", "jsonl")
    assert sorted(path.name for path in (tmp_path / "more").iterdir()) == [
        "a.jsonl",
        "b.jsonl.gz",
        "c.jsonl",
        "d.jsonl",
    ]
    (source / "a.jsonl").write_text('{"text": "x"}\n')
    refused = run(*words, "--output", tmp_path / "third", "--format", "jsonl", code=2)
    assert "several of its files would be written as a.jsonl" in refused.stderr
    (source / "d.arrow").unlink()
    (source / "a.jsonl").write_text('{"body": "x"}\n')
    assert "a.jsonl: no column 'text'" in run(*words, "--output", tmp_path / "third", code=2).stderr
    assert not (tmp_path / "third").exists()


BAD = [
    {"id": 1, "text": "fine", "question1": "a", "question2": "b"},
    {"id": 2, "text": None, "question1": "a", "question2": "b"},
    {"id": 3, "text": ["x"], "question1": None, "question2": "b"},
    {"id": 4, "text": "fine", "question1": "a", "question2": "b"},
]


def test_rows_that_cannot_be_scored_are_listed_apart_and_none_is_lost(trained: Path, tmp_path: Path) -> None:
    source, out, apart = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "bad.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in BAD) + "{broken\n")
    words = ("predict", trained, "--input", source, "--output", out, "--rejected", apart)
    done = run(*words, "--task", "reviews", "--task", "questions")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == [1, 2, 4]
    assert rows[1]["reviews_label"] is None
    assert rows[1]["questions_label"] is not None
    found = [json.loads(line) for line in apart.read_text().splitlines()]
    assert found == [
        {"file": str(source), "line": 2, "problem": "no text for reviews", "tasks": ["reviews"], "row": BAD[1]},
        {
            "file": str(source),
            "line": 3,
            "problem": "the text is a list or an object for reviews, no text for questions",
            "tasks": ["reviews", "questions"],
            "row": BAD[2],
        },
        {
            "file": str(source),
            "line": 5,
            "problem": "not valid JSON",
            "tasks": ["reviews", "questions"],
            "row": "{broken",
        },
    ]
    assert f"{source}:5: not valid JSON; listed in {apart}" in done.stderr
    told = document(*words)
    assert (told["rows"], told["without_prediction"], told["rejected"]) == (5, 3, str(apart))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "in.jsonl", "out.jsonl"]
    piped = run("predict", trained, "--task", "reviews", "--rejected", apart, stdin="id,text\n1,x\n2\n3,y,z\n")
    assert [row["id"] for row in rows_of(piped.stdout)] == ["1"]
    assert [json.loads(line)["row"] for line in apart.read_text().splitlines()] == ["2", "3,y,z"]


@pytest.mark.parametrize("output", ["out.csv", "out.parquet"])
@pytest.mark.parametrize(
    ("name", "told"),
    [("a.csv", ":42: byte 0xe9 is not valid utf-8"), ("a.csv.gz", ": damaged gzip file")],
)
def test_a_broken_file_keeps_what_was_scored_and_says_where(
    name: str, told: str, output: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "_SAMPLE_CHARS", 50)
    monkeypatch.setattr(text, "_HEAD_BYTES", 50)
    source, out, kept = tmp_path / name, tmp_path / output, tmp_path / f"{output}.part/rows/{output}"
    content = as_csv([{"id": n, "text": "word " * 2000} for n in range(40)]).encode()
    source.write_bytes(gzip.compress(content, 0)[:-15] if name.endswith("gz") else content + b"40,caf\xe9\n")
    words = ("predict", trained, "--task", "reviews", "--input", source, "--output", out)

    def scored() -> list[str]:
        rows = rows_of(kept.read_text()) if output == "out.csv" else pq.read_table(kept).to_pylist()
        assert None not in [row["label"] for row in rows]
        return [row["id"] for row in rows]

    refused = run(*words, code=2)
    assert f"{source}{told}" in refused.stderr
    assert f"the {len(scored())} rows before that are scored: {kept}" in refused.stderr
    assert not out.exists()
    assert scored() == [str(n) for n in range(len(scored()))]
    assert len(scored()) > 20
    before = kept.read_bytes()
    assert told in run(*words, "--resume", code=2).stderr
    assert kept.read_bytes() == before
    piped = run(*words[:-2], code=2)
    assert told in piped.stderr
    assert [row["id"] for row in rows_of(piped.stdout)] == scored()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--task", "moods"), "no task 'moods'; expected one of reviews, questions, sentences"),
        (("--task", "reviews", "--task", "sentences"), "no column 'sentence1'"),
        (("--output", "out.xlsx"), "no format has this ending"),
        (("--output", "out.parquet.gz"), "no format has this ending"),
        (("--format", "parquet"), "parquet cannot be written to a pipe"),
        (("--format", "cs224n"), "--format cs224n is for one task, not for reviews, questions"),
        (("--output", "."), "is a folder; expected a file"),
        (("--rejected", "gone/bad.jsonl"), "no folder gone; make it or choose another --rejected"),
        (("--rejected", "o.csv", "--output", "o.csv"), "expected a file of its own"),
        (("--resume",), "--resume goes on with a file; expected --output FILE"),
        (("--resume", "--output", "out.csv"), "--resume: a pipe cannot be read again"),
    ],
)
def test_what_cannot_be_done_is_told(
    words: tuple[str, ...], told: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("predict", trained, *words, stdin=as_csv(ROWS), code=2)
    assert told in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_told(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").touch()
    words = ("predict", trained, "--input", tmp_path / "in.csv", "--output", tmp_path / "o.csv")
    assert "in.csv: the file is empty" in run(*words, code=2).stderr
    (tmp_path / "in").mkdir()
    assert "holds no files" in run(*words[:3], tmp_path / "in", *words[4:], code=2).stderr
    (tmp_path / "in.csv").write_text("id,text\n")
    for name in ("o.csv", "o.parquet"):
        run(*words[:5], tmp_path / name)
    assert rows_of((tmp_path / "o.csv").read_text()) == []
    assert pq.read_table(tmp_path / "o.parquet").column_names[:3] == ["id", "text", "prediction"]


def test_a_full_disk_ends_it_with_74_and_it_goes_on_later(trained: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(as_csv(ROWS))
    words = ("predict", trained, "--task", "reviews", "--input", source, "--output")
    run(*words, tmp_path / "whole.csv")
    visits = 0

    def full(place: str, value: Any) -> Any:
        nonlocal visits
        visits += place == "bulk: a piece is written"
        if visits == 3:  # behind the header and the first chunk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return value

    with injected(full):
        stopped = run(*words, out, code=74)
    assert "free some space" in stopped.stderr
    assert not out.exists()
    assert "go on with it by --resume" in run(*words, out, code=2).stderr
    assert "goes on behind 3 rows" in run(*words, out, "--resume").stderr
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv", "whole.csv"]
