"""Stages that recipes begin with alike: which runs share them, and that sharing changes no bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from manyhead.build import train
from manyhead.recipe.load import load_recipe
from manyhead.studies.load import load_study
from manyhead.studies.one_run import train_one
from manyhead.studies.plan import plan_study
from manyhead.studies.planner import Options, Planner
from manyhead.studies.prefix import begin_from, is_complete, with_prefixes
from manyhead.studies.runs import PlannedRun
from manyhead.studies.schema import BUDGETS

Write = Callable[..., Path]

A: dict[str, Any] = {"name": "a", "epochs": 2}
B: dict[str, Any] = {"name": "b", "tasks": ["reviews"], "epochs": 1}
C: dict[str, Any] = {"name": "c", "tasks": ["questions"], "epochs": 1}


@pytest.fixture
def runs_of(write_recipe: Write, write_study: Write) -> Callable[..., dict[str, PlannedRun]]:
    """The runs of a study of recipes with these stages, by the names of their recipes."""

    def plan(**recipes: list[dict[str, Any]]) -> dict[str, PlannedRun]:
        for name, stages in recipes.items():
            write_recipe(name, *stages)
        rows = ", ".join(f"{name}.yaml" for name in recipes)
        loaded = load_study(write_study(f"study: 1\nname: n\nrows: [{rows}]\n"))
        planned = plan_study(Planner(Options(BUDGETS["full"], 1)), loaded)
        return {row.name: row.members[0].runs[0] for row in planned.rows}

    return plan


def shared(runs: dict[str, PlannedRun], *, exists: bool = False) -> dict[str, tuple[int, ...]]:
    """Of each run, after how many stages the runs end that it begins with, from itself up."""
    planned = with_prefixes(list(runs.values()), lambda _: exists)
    order = [run.digest for run in planned]
    for run in planned:
        assert run.begins_with is None or order.index(run.begins_with.digest) < order.index(run.digest)
    found: dict[str, tuple[int, ...]] = {}
    by_digest = {run.digest: run for run in planned}
    for name, run in runs.items():
        before, ends = by_digest[run.digest].begins_with, []
        while before is not None:
            ends.append(before.until or 0)
            before = by_digest[before.digest].begins_with
        found[name] = tuple(ends)
    return found


def test_what_several_recipes_begin_with_is_trained_once(runs_of: Any) -> None:
    runs = runs_of(
        ab=[A, B], ac=[A, C], b=[B], abc=[A, B, C], acb=[A, C, {**B, "epochs": 2}], other=[{**A, "epochs": 1}, B]
    )
    assert shared(runs) == {"ab": (2, 1), "ac": (2, 1), "b": (), "abc": (2, 1), "acb": (2, 1), "other": ()}
    runs = runs_of(a=[A], ab=[A, B], c=[C])
    assert shared(runs) == {"a": (1,), "ab": (1,), "c": ()}


def test_the_longest_beginning_is_enough(runs_of: Any) -> None:
    runs = runs_of(abc=[A, B, C], abd=[A, B, {**C, "name": "d"}])
    assert shared(runs) == {"abc": (2,), "abd": (2,)}
    assert shared(runs_of(abc=[A, B, C])) == {"abc": ()}
    assert shared(runs_of(abc=[A, B, C]), exists=True) == {"abc": (2,)}


def test_runs_that_go_back_to_other_checkpoints_begin_alone(runs_of: Any) -> None:
    back = {**C, "name": "d", "start": "encoder"}
    taught = {**C, "name": "e", "distillation": {"teachers": ["a"]}}
    runs = runs_of(ab=[A, B], ad=[A, back], ac=[A, C], ae=[A, taught], ade=[A, {**back, "epochs": 3}])
    assert shared(runs) == {"ab": (1,), "ad": (1,), "ac": (1,), "ae": (), "ade": (1,)}
    beginnings = [run for run in with_prefixes(list(runs.values()), lambda _: False) if run.until]
    assert len({run.digest for run in beginnings}) == len(beginnings) == 2


def test_other_seeds_and_other_data_share_nothing(write_recipe: Write, write_study: Write) -> None:
    write_recipe("ab", A, B)
    write_recipe("ac", A, C)
    planner = Planner(Options(BUDGETS["full"], 2))
    plan = plan_study(planner, load_study(write_study("study: 1\nname: n\nrows: [ab.yaml, ac.yaml]\n")))
    planned = with_prefixes(plan.runs, lambda _: False)
    assert [(run.until, run.recipe.seed) for run in planned if run.until] == [(1, 13), (1, 14)]
    assert all(run.begins_with is None or run.begins_with.recipe.seed == run.recipe.seed for run in planned)


def records(run: Path) -> list[dict[str, Any]]:
    """What two equal runs have in common in their logs."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in record.items() if key != "time"} for record in found if record["kind"] != "event"
    ]


def weights(run: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(run / "model/weights.safetensors").items()}


STATEFUL: dict[str, Any] = {"name": "d", "epochs": 1, "balancing": "uncertainty", "regularisers": ["smart"]}
BACK: dict[str, Any] = {**C, "start": "encoder"}
TAUGHT: dict[str, Any] = {**B, "distillation": {"teachers": ["a"]}}
slow = pytest.mark.slow


@pytest.mark.parametrize(
    "later",
    [
        pytest.param([STATEFUL, BACK, TAUGHT], id="all"),
        pytest.param([C], id="plain", marks=slow),
        pytest.param([BACK, B], id="back", marks=slow),
        pytest.param([TAUGHT], id="taught", marks=slow),
    ],
)
def test_a_run_that_begins_with_another_is_the_uninterrupted_run_bit_for_bit(
    later: list[dict[str, Any]], write_recipe: Write, tmp_path: Path
) -> None:
    first = {**A, "balancing": "dwa"}
    path = write_recipe("mine", first, *later)
    leader = write_recipe("leader", first, *[{**stage, "epochs": 2} for stage in later])
    whole = train(load_recipe(path), out=tmp_path / "whole")

    assert not is_complete(tmp_path / "beginning", 1)
    outcome, code = train_one(leader, tmp_path / "beginning", 1)
    assert (outcome.status, code) == ("finished", 0)
    assert is_complete(tmp_path / "beginning", 1)
    assert not is_complete(tmp_path / "beginning", 2)
    recipe = load_recipe(path, overrides={"name": "built"})
    begin_from(tmp_path / "beginning", tmp_path / "built", recipe.recipe)
    built = train(recipe, out=tmp_path / "built", resume=True)

    assert weights(built.path) == weights(whole.path)
    assert records(built.path) == records(whole.path)
    clocked = ("seconds", "name")
    assert {k: v for k, v in built.summary.items() if k not in clocked} == {
        k: v for k, v in whole.summary.items() if k not in clocked
    }
    assert is_complete(tmp_path / "beginning", 1)  # what was linked from it is as it was


def test_a_recipe_that_ends_where_the_others_begin(write_recipe: Write, tmp_path: Path) -> None:
    path, leader = write_recipe("mine", A), write_recipe("leader", A, B)
    whole = train(load_recipe(path), out=tmp_path / "whole")
    train_one(leader, tmp_path / "beginning", 1)
    recipe = load_recipe(path, overrides={"name": "built"})
    begin_from(tmp_path / "beginning", tmp_path / "built", recipe.recipe)
    built = train(recipe, out=tmp_path / "built", resume=True)
    assert weights(built.path) == weights(whole.path)
    assert built.summary["dev"] == whole.summary["dev"]
    assert records(built.path) == records(whole.path)
