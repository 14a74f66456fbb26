"""Checking data: all errors at once, and planted faults are found, every one."""

import json
from pathlib import Path

import pytest
from data_makers import make_recipe, make_task, write_jsonl, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from manyhead.data.check import DataReport, Leak, check_data
from manyhead.errors import DataError, UsageError


def check(folder: Path, files: dict[str, list[str]], **keys) -> DataReport:
    """The report on one task whose splits hold ``files``, below the header text,label."""
    for split, lines in files.items():
        write_lines(folder / f"{split}.csv", "text,label", *lines)
    task = make_task(files={split: f"{split}.csv" for split in files}, **keys)
    return check_data(make_recipe(folder, {"t": task}))


def messages(report: DataReport) -> str:
    return "\n".join(map(str, [*report.errors, *report.warnings]))


def leaks(report: DataReport, what: str = "example") -> dict[tuple[str, str], int]:
    return {(leak.source, leak.into): leak.rows for leak in report.leaks if leak.what == what}


def test_clean_data_gives_counts_and_no_words(tmp_path: Path) -> None:
    report = check(tmp_path, {"train": ["a,1", "b,0", "c,1"], "dev": ["d,0", "e,1"], "test": ["f,"]})
    assert messages(report) == ""
    train, dev, test = report.splits
    assert (train.rows, train.used, train.rejected, train.classes) == (3, 3, 0, {"bad": 1, "good": 2})
    assert (dev.note, dev.duplicates, test.classes) == ("comma-separated, CSV quoting", 0, None)
    report.raise_errors()


def test_all_errors_of_all_tasks_come_at_once_with_their_place(tmp_path: Path) -> None:
    write_lines(tmp_path / "good.csv", "text,label", "x,1", "y,0")
    write_lines(tmp_path / "bad.csv", "text,label", "x,7", ",1", "x")
    write_lines(tmp_path / "header.csv", "text,label")
    tasks = {
        "a": make_task(files={"train": "god.csv", "dev": "good.csv"}),
        "b": make_task(files={"train": "bad.csv", "dev": "header.csv"}),
        "c": make_task(files={"train": "good.csv"}, text=["txet"], target="lable"),
        "d": make_task(files={"train": "gone.csv", "dev": {"from": "train", "fraction": 0.5}}),
    }
    report = check_data(make_recipe(tmp_path, tasks), place=lambda key: ("recipe.yaml", len(key)))
    with pytest.raises(DataError) as caught:
        report.raise_errors()
    keys = [problem.key for problem in caught.value.problems]
    assert keys == [
        "tasks.a.files.train",
        *["tasks.b.files.train"] * 2,
        "tasks.b.files.dev",
        *("tasks.c.text", "tasks.c.target"),
        "tasks.d.files.train",
    ]
    first = str(caught.value.problems[0])
    assert first.startswith(f"recipe.yaml:19: tasks.a.files.train: no file {tmp_path / 'god.csv'}; in {tmp_path} are: ")
    assert first.endswith("did you mean 'good.csv'?")
    assert str(caught.value.problems[1]).startswith(f"{tmp_path / 'bad.csv'}:2: tasks.b.files.train: 3 of 3 rows rej")


def test_damage_met_while_reading_is_an_error_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,label\n" + b"x,1\n" * 10_000 + b"\xe9,1\n")
    report = check_data(make_recipe(tmp_path, {"t": make_task(files={"train": "a.csv"})}))
    assert [str(error) for error in report.errors] == [
        f"{tmp_path / 'a.csv'}:10002: tasks.t.files.train: byte 0xe9 is not valid utf-8; "
        "name the file's encoding, such as charset: latin-1"
    ]


def test_few_rejected_rows_warn(tmp_path: Path) -> None:
    report = check(tmp_path, {"train": [*(f"w{i},{i % 2}" for i in range(199)), "x,7"]})
    assert report.errors == []
    assert "1 of 200 rows rejected: unknown label '7'" in messages(report)
    assert report.splits[0].first_rejected[0].line == 201


def test_one_sided_classes_and_constant_scores_warn(tmp_path: Path) -> None:
    report = check(tmp_path, {"train": ["a,1", "b,1"], "dev": ["c,0"]})
    assert "train.csv: tasks.t.files.train: all rows are of the class 'good'" in messages(report)
    labels = {0: "x", 1: "y", 2: "z"}
    report = check(tmp_path, {"train": ["a,1", "b,0", "c,2"], "dev": ["d,0", "e,1"]}, labels=labels)
    assert "tasks.t.files.dev: no rows of: z" in messages(report)
    report = check(tmp_path, {"train": ["a,1", "b,1"]}, kind="regression", range=[0, 5])
    assert "all scores are 1" in messages(report)


def test_scores_have_their_spread(tmp_path: Path) -> None:
    report = check(tmp_path, {"train": [f"w{i},{i / 2}" for i in range(11)]}, kind="regression", range=[0, 5])
    scores = report.splits[0].scores
    assert scores is not None
    assert sum(scores.counts) == 11
    assert (scores.edges[0], scores.edges[-1]) == (0, 5)
    assert scores.quantiles == {"0%": 0.0, "25%": 1.25, "50%": 2.5, "75%": 3.75, "100%": 5.0}


@pytest.mark.parametrize(
    "cells", [("0.3", "0.30000000000000004"), ("1e20", "1e20"), ("3e38", "-3e38"), ("0", "5e-324")]
)
def test_scores_at_any_distance_have_a_spread(tmp_path: Path, cells: tuple[str, str]) -> None:
    report = check(tmp_path, {"train": [f"w{i},{cell}" for i, cell in enumerate(cells)]}, kind="regression")
    scores = report.splits[0].scores
    assert scores is not None
    assert sum(scores.counts) == 2
    assert {scores.quantiles["0%"], scores.quantiles["100%"]} == set(map(float, cells))


def test_duplicates_fold_case_and_space_and_conflicts_are_told_apart(tmp_path: Path) -> None:
    report = check(tmp_path, {"train": ["A  b,1", "x,0", "a B,1", " a b ,0", "Straße,1", "STRASSE,1"]})
    train = report.splits[0]
    assert (train.duplicates, train.conflicts, train.first_conflicts) == (3, 1, [(2, 5)])
    assert "1 row with another target than an earlier equal row (lines 2 and 5)" in messages(report)


@given(planted=st.sets(st.integers(0, 99), max_size=10))
@settings(max_examples=20)
def test_planted_leaks_are_found_all(tmp_path_factory: pytest.TempPathFactory, planted: set[int]) -> None:
    folder = tmp_path_factory.mktemp("leak")
    train = [f"train {i},{i % 2}" for i in range(200)]
    dev = [f"TRAIN   {i},1" if i in planted else f"dev {i},{i % 2}" for i in range(100)]
    report = check(folder, {"train": train, "dev": dev})
    assert leaks(report) == ({("t.train", "t.dev"): len(planted)} if planted else {})
    for leak in report.leaks:
        assert leak.share == len(planted) / 100
        assert leak.first == [(i + 2, i + 2) for i in sorted(planted)[:5]]


def test_leaks_between_pairs_and_tasks(tmp_path: Path) -> None:
    write_lines(tmp_path / "p.csv", "a,b,label", "one,two,1", "three,four,0", "five,,0")
    write_lines(tmp_path / "q.csv", "a,b,label", "Two,ONE,1", "one,nine,0", "eight,,1")
    write_lines(tmp_path / "s.csv", "text,label", "four,1", "seven,0")
    tasks = {
        "p": make_task(text=["a", "b"], files={"train": "p.csv", "dev": "q.csv"}),
        "s": make_task(files={"dev": "s.csv"}),
    }
    report = check_data(make_recipe(tmp_path, tasks))
    assert leaks(report) == {("p.train", "p.dev"): 1}
    assert leaks(report, "text") == {("p.train", "p.dev"): 2, ("p.train", "s.dev"): 1}
    assert Leak("p.train", "s.dev", "text", 1, 0.5, [(3, 2)]) in report.leaks
    assert messages(report).count("too good") == 2


def test_the_report_is_plain_json(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "x\ud800", "label": 1}, {"text": "y", "label": None}])
    files = {"train": "a.jsonl", "dev": "a.jsonl", "test": "gone.jsonl"}
    report = check_data(make_recipe(tmp_path, {"t": make_task(files=files)}))
    plain = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert plain["splits"][0]["replaced"] == 1
    assert plain["splits"][0]["first_rejected"] == [{"line": 2, "reason": "no target"}]
    assert any("gone.jsonl" in error for error in plain["errors"])


def test_errors_of_resolving_pass(tmp_path: Path) -> None:
    def resolve(reference: str) -> Path:
        raise UsageError(f"cannot fetch {reference}")

    with pytest.raises(UsageError, match="cannot fetch"):
        check_data(make_recipe(tmp_path, {"t": make_task(files={"train": "hub:a/b:train"})}), resolve=resolve)
