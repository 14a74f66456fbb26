"""Examples: every row is used or rejected, targets mean what the recipe says, cuts are exact."""

from pathlib import Path
from typing import Any

import pytest
from data_makers import make_task, write_jsonl, write_lines
from hypothesis import given
from hypothesis import strategies as st

from manyhead.data.examples import Example, Examples, findings, read_examples, reference_of, resolver
from manyhead.errors import DataError
from manyhead.recipe.schema import Split, Task

CELLS = st.sampled_from(["0", "1.0", "2", "", " ", "x", "good", "\t", '"', "nan", "1e400", "1_0"])


def read(task: Task, path: Path, split: Split = "train", seed: int = 13) -> tuple[list[Example], Examples]:
    examples = read_examples("t", task, split, path, seed=seed)
    return list(examples), examples


def classes(tmp_path: Path, labels: Any, cells: list[object]) -> list[int | float | None]:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "x", "label": cell} for cell in cells])
    return [example.target for example in read(make_task(labels=labels), path)[0]]


@given(rows=st.lists(st.lists(CELLS, min_size=1, max_size=4).map("\t".join), max_size=20))
def test_rows_in_are_rows_used_and_rejected(tmp_path_factory: pytest.TempPathFactory, rows: list[str]) -> None:
    path = write_lines(tmp_path_factory.mktemp("rows") / "a.tsv", "text\tlabel", *rows)
    used, examples = read(make_task(quoting="none", format="tsv"), path)
    tally = examples.tally()
    assert tally.used == len(used)
    assert tally.rows == tally.used + tally.rejects.total == sum(row != "" for row in rows)
    lines = [example.line for example in used] + [reject.line for reject in tally.rejects.first]
    assert len(set(lines)) == len(lines)


def test_labels_match_as_text_then_as_numbers(tmp_path: Path) -> None:
    assert classes(tmp_path, {0: "no", 1: "yes"}, ["0", "1.0", "0.0", 1, 0.0, True, " 1 ", "01", "1e0"]) == [
        *(0, 1, 0, 1, 0, 1, 1, 1, 1)
    ]
    assert classes(tmp_path, ["neg", "pos"], ["pos", " neg", "POS", "nan"]) == [1, 0]
    assert classes(tmp_path, {True: "yes", False: "no"}, ["true", "FALSE", "True", 1, "0", False]) == [0, 1, 0, 0, 1, 1]
    assert classes(tmp_path, ["1.0", "1"], ["1", "1.0", "1.00"]) == [1, 0, 0]
    assert classes(tmp_path, [0.5, "nan"], ["0.50", "nan"]) == [0, 1]


def test_every_unusable_row_has_its_line_and_reason(tmp_path: Path) -> None:
    rows = [
        {"text": "x", "label": 0},
        {"text": "x", "label": 7},
        {"text": "x", "label": None},
        {"text": "x"},
        {"text": " ", "label": 1},
        {"text": None, "label": 1},
        {"text": ["x"], "label": 1},
        {"text": "x", "label": {"a": 1}},
        {"text": 42, "label": 1},
    ]
    used, examples = read(make_task(), write_jsonl(tmp_path / "a.jsonl", rows))
    assert [(example.line, example.texts, example.target) for example in used] == [(1, ("x",), 0), (9, ("42",), 1)]
    assert [(reject.line, reject.reason) for reject in examples.tally().rejects.first] == [
        (2, "unknown label '7' (labels: 0, 1)"),
        (3, "no target"),
        (4, "no target"),
        (5, "empty text"),
        (6, "no text"),
        (7, "the text is a list or an object"),
        (8, "the target is a list or an object"),
    ]


def test_scores_are_finite_numbers_in_the_range(tmp_path: Path) -> None:
    task = make_task(kind="regression", range=[0, 5])
    cells = ["0", "5.0", "-0.1", "5.01", "nan", "inf", "x", "1_0", "", "2.5", True, 3]
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "x", "label": cell} for cell in cells])
    used, examples = read(task, path)
    assert [example.target for example in used] == [0, 5, 2.5, 3]
    reasons = [reject.reason for reject in examples.tally().rejects.first]
    assert reasons[0] == "the target -0.1 is outside of the range 0 to 5"
    assert reasons[2] == "the target 'nan' is no finite number"
    assert len(reasons) == 8


def test_scores_that_32_bits_cannot_hold_are_rejected(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.csv", "text,label", "x,1e39", "x,-1e300", "x,3.4e38", "x,1e-320")
    used, examples = read(make_task(kind="regression"), path)
    assert [example.target for example in used] == [3.4e38, 1e-320]
    assert examples.tally().rejects.first[0].reason == "the target 1e+39 is too large for 32 bits"


def test_pairs_with_one_empty_text_are_used_and_counted(tmp_path: Path) -> None:
    task = make_task(text=["a", "b"])
    path = write_lines(tmp_path / "a.csv", "a,b,label", "x,y,1", "x,,1", " ,y,1", ",,1")
    used, examples = read(task, path)
    assert [example.texts for example in used] == [("x", "y"), ("x", ""), (" ", "y")]
    assert examples.tally().empty_texts == 2
    assert [reject.line for reject in examples.tally().rejects.first] == [5]


def test_ids_are_the_column_or_row_numbers(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.csv", "id,guid,text,label", "i0,g0,x,1", "broken", "i2,g2,,1", ",,x,0", "i4,g4,x,0"
    )
    assert [example.id for example in read(make_task(), path)[0]] == ["i0", "3", "i4"]
    assert [example.id for example in read(make_task(id="guid"), path)[0]] == ["g0", "3", "g4"]
    path = write_lines(tmp_path / "b.csv", "text,label", "x,1", "broken", ",1", "x,0")
    assert [example.id for example in read(make_task(), path)[0]] == ["0", "3"]


@pytest.mark.parametrize(
    ("lines", "has_targets", "used"),
    [
        (["text", "x", "y"], False, 2),
        (["text,label", "x,", "y,1"], False, 2),
        (["text,label", "x,-1", "y,-1"], False, 2),
        (["text,label", "x,1", "y,0"], True, 2),
        (["text,label", "x,1", "y,"], True, 1),
        (["text,label", "x,7", "y,1"], True, 1),
    ],
)
def test_test_splits_may_have_no_targets(tmp_path: Path, lines: list[str], has_targets: bool, used: int) -> None:
    examples = read_examples("t", make_task(), "test", write_lines(tmp_path / "a.csv", *lines), seed=1)
    assert examples.has_targets == has_targets
    assert len(list(examples)) == used


def test_training_splits_need_targets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'label'"):
        read_examples("t", make_task(), "train", write_lines(tmp_path / "a.csv", "text", "x"), seed=1)


def test_minus_one_is_a_label_where_the_recipe_says_so(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.csv", "text,label", "x,-1", "y,1")
    used, _ = read(make_task(labels=[-1, 1]), path, "test")
    assert [example.target for example in used] == [0, 1]


def test_limit_takes_the_first_usable_rows(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.csv", "text,label", "a,1", "b,9", "c,1", "d,1", "e,9")
    used, examples = read(make_task(limit={"train": 2}), path)
    assert [example.texts[0] for example in used] == ["a", "c"]
    assert examples.tally().rejects.total == 1


@given(n=st.integers(0, 300), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 5))
def test_a_cut_gives_every_row_to_one_split(
    tmp_path_factory: pytest.TempPathFactory, n: int, fraction: float, seed: int
) -> None:
    path = write_lines(tmp_path_factory.mktemp("cut") / "a.csv", "text,label", *(f"w{i},{i % 2}" for i in range(n)))
    task = make_task(files={"train": "a.csv", "dev": {"from": "train", "fraction": fraction}})
    train = read(task, path, "train", seed)[0]
    if len(train) == n > 0:
        with pytest.raises(DataError, match=f"of {n} rows? is none"):
            read(task, path, "dev", seed)
        assert n * fraction <= 2
        return
    dev = read(task, path, "dev", seed)[0]
    assert sorted(example.line for example in train + dev) == list(range(2, n + 2))
    assert abs(len(dev) - n * fraction) <= 2
    again = read(task, path, "dev", seed)[0]
    assert again == dev


def test_a_cut_depends_on_seed_and_task_and_counts_broken_rows_once(tmp_path: Path) -> None:
    lines = [f"w{i},{i % 2}" if i % 10 else "broken" for i in range(1, 1001)]
    path = write_lines(tmp_path / "a.csv", "text,label", *lines)
    task = make_task(files={"train": "a.csv", "dev": {"from": "train", "fraction": 0.25}})

    def dev_lines(name: str, seed: int) -> list[int]:
        return [example.line for example in read_examples(name, task, "dev", path, seed=seed)]

    assert dev_lines("t", 1) == dev_lines("t", 1)
    assert dev_lines("t", 1) != dev_lines("t", 2)
    assert dev_lines("t", 1) != dev_lines("u", 1)
    pinned = task.with_dev_seed(1)
    assert [example.line for example in read_examples("t", pinned, "dev", path, seed=2)] == dev_lines("t", 1)
    assert pinned.with_dev_seed(5) == pinned
    train, train_examples = read(task, path, "train")
    dev, dev_examples = read(task, path, "dev")
    assert len(train) + len(dev) == 900
    assert (train_examples.tally().rejects.total, dev_examples.tally().rejects.total) == (100, 0)


def test_findings_on_a_cut_dev_split_name_its_own_key(tmp_path: Path) -> None:
    task = make_task(files={"train": "a.csv", "dev": {"from": "train", "fraction": 0.1}})
    path = write_lines(tmp_path / "a.csv", "text,label", "x,1", "y,0", "z,1")
    with pytest.raises(DataError) as caught:
        read(task, path, "dev")
    assert str(caught.value) == (
        f"{path}: tasks.t.files.dev: the fraction 0.1 of 3 rows is none; raise fraction, or give a dev file"
    )
    examples = read(task, write_lines(path, "text,label", *["x,7"] * 10), "dev")[1]
    errors, _ = findings(examples.tally(), examples.key, path, 0.01)
    assert [error.key for error in errors] == ["tasks.t.files.dev"] * 2
    with pytest.raises(DataError, match=r"tasks\.t\.files\.train: no file"):
        read(task, tmp_path / "gone.csv", "dev")


def test_a_cut_of_whole_shares_is_exact_everywhere(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.csv", "text,label", *(f"w{i},1" for i in range(10_000)))
    task = make_task(files={"train": "a.csv", "dev": {"from": "train", "fraction": 0.1}})
    lines = [example.line - 2 for example in read(task, path, "dev")[0]]
    assert [line // 10 for line in lines] == list(range(1000))
    assert len({line % 10 for line in lines}) == 10
    assert reference_of(task, "dev") == "a.csv"


def test_all_missing_columns_are_named_at_once(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.csv", "txt,lable", "x,1")
    with pytest.raises(DataError) as caught:
        read_examples("t", make_task(id="key"), "train", path, seed=1)
    assert [problem.key for problem in caught.value.problems] == ["tasks.t.text", "tasks.t.target", "tasks.t.id"]
    assert "did you mean 'lable'?" in str(caught.value)


def test_findings_name_rows_and_reasons(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.csv", "text,label", *["x,1"] * 97, "x,7", "x,7", ",1")
    examples = read(make_task(), path)[1]
    errors, warnings = findings(examples.tally(), examples.key, path, 0.01)
    assert warnings == []
    assert str(errors[0]) == (
        f"{path}:99: tasks.t.files.train: 3 of 100 rows rejected: "
        "unknown label '7' (labels: 0, 1) (2 rows, lines 99, 100), empty text (1 row, line 101); "
        "expected at most 1.00% (max_rejected); mend the rows, or raise max_rejected"
    )
    errors, warnings = findings(examples.tally(), examples.key, path, 0.03)
    assert errors == []
    assert len(warnings) == 1


def test_references_resolve_below_the_folder_or_through_fetch(tmp_path: Path) -> None:
    resolve = resolver(tmp_path, lambda reference: Path("fetched") / reference.removeprefix("hub:"))
    assert resolve("a/b.csv") == tmp_path / "a" / "b.csv"
    assert resolve(str(tmp_path / "c.csv")) == tmp_path / "c.csv"
    assert resolve("hub:x/y:train") == Path("fetched/x/y:train")
    with pytest.raises(DataError, match="hub:x/y:train"):
        resolver(tmp_path)("hub:x/y:train")
