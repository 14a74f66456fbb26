import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from manyhead.evaluation.scored import Scored
from manyhead.report.examples import data_block, gather_examples

EDGES = "<>&\"'\\\u2028\u2029\u202e\x00"


def classes(rows: int, seed: int = 0, text: str = "some words of row") -> Scored:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet([1, 1, 1], rows)
    return Scored(
        "t",
        "classification",
        "accuracy",
        [f"id{row}" for row in range(rows)],
        np.random.default_rng(99).integers(3, size=rows),
        probabilities.argmax(1),
        probabilities,
        [(f"{text} {row}",) for row in range(rows)],
        np.zeros(rows, bool),
        ("a", "b", "c"),
    )


def test_mistakes_come_first_and_the_surest_of_them() -> None:
    scored = classes(200)
    (task,) = gather_examples({"t": {"run": scored}})
    assert scored.probabilities is not None
    wrong = scored.values != scored.targets
    sure = scored.probabilities.max(1)
    order = sorted(np.flatnonzero(wrong), key=lambda row: -sure[row])
    ids = [row[0] for row in task.rows]
    assert ids[: len(order)] == [f"id{row}" for row in order]
    assert sorted(ids) == sorted(scored.ids)
    assert (task.total, task.n_wrong, task.wrong_shown) == (200, int(wrong.sum()), int(wrong.sum()))
    for row in task.rows[:20]:
        place = int(row[0][2:])
        assert row[2:5] == [
            scored.targets[place],
            scored.labels[scored.targets[place]],
            [[scored.values[place], scored.labels[scored.values[place]], f"{sure[place]:.2f}", int(not wrong[place])]],
        ]


def test_rows_fit_the_budget_and_the_same_ones_again() -> None:
    tasks = {name: {"run": classes(300, seed)} for seed, name in enumerate("ab")}
    found = gather_examples(tasks, budget_bytes=20_000)
    assert 0 < len(data_block(found).encode()) < 20_000 + 500
    assert all(0 < len(task.rows) < task.total for task in found)
    assert data_block(found) == data_block(gather_examples(tasks, budget_bytes=20_000))
    assert [len(task.rows) for task in gather_examples(tasks, budget_bytes=0)] == [0, 0]


def test_room_that_a_small_task_leaves_goes_to_the_next() -> None:
    small, large = {"run": classes(5)}, {"run": classes(400)}
    alone, shared = (
        gather_examples(tasks, budget_bytes=20_000)[-1] for tasks in ({"b": large}, {"a": small, "b": large})
    )
    assert len(shared.rows) > 0.9 * len(alone.rows) - 10


def test_runs_on_other_rows_are_left_out() -> None:
    (task,) = gather_examples({"t": {"one": classes(9), "two": classes(9, 1), "other": classes(8)}})
    assert list(task.runs) == ["one", "two"]
    assert all(len(row[4]) == 2 for row in task.rows)


def test_scores_are_right_in_the_bucket_of_their_target() -> None:
    targets, values = np.array([0.5, 1.5, 5.0, 2.0]), np.array([0.9, 2.5, 7.0, 1.99])
    scored = Scored("t", "regression", "pearson", list("abcd"), targets, values, range=(0, 5))
    (task,) = gather_examples({"t": {"run": scored}})
    assert list(task.classes) == ["0 to 1", "1 to 2", "2 to 3", "3 to 4", "4 to 5"]
    assert [row[0] for row in task.rows[:2]] == ["b", "d"], "the largest error first, of those in another bucket"
    assert {row[0]: row[4][0][:2] for row in task.rows}["c"] == [4, "7.00"]


@given(st.text(st.characters() | st.sampled_from(EDGES), max_size=40))
def test_any_text_is_data_and_nothing_else(text: str) -> None:
    block = data_block(gather_examples({text: {text: classes(2, text=text)}}))
    assert not set("<>&\u2028\u2029\u202e\x00") & set(block)
    block.encode()
    task = json.loads(block)[0]
    if text.isprintable():
        assert (task["name"], task["runs"]) == (text, [text])
        assert task["rows"][0][1][0].startswith(f"{text} ")


def test_long_texts_are_shortened_which_is_said() -> None:
    (task,) = gather_examples({"t": {"run": classes(1, text="x" * 100_000)}})
    assert task.rows[0][1][0].endswith("[100,002 characters; shortened]")
    assert len(task.rows[0][1][0]) < 700
