"""Budgets: what a cut recipe trains on, counted step by step, and what is left as it is."""

from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyhead.recipe.load import load_recipe, recipe_yaml
from manyhead.recipe.schema import Recipe
from manyhead.recipe.tables import TABLES, builder
from manyhead.recipe.yaml_text import parse_document
from manyhead.schedules.base import StreamOptions
from manyhead.schedules.streams import BatchStream
from manyhead.studies.budget import allowances, cut, shares, shorten, stage_examples
from manyhead.studies.schema import BUDGETS, Budget
from tiny import tiny_recipe

ENCODER = Path("encoder")
SCHEDULES = [
    "sequential",
    "interleaved",
    "shuffled",
    {"kind": "parallel", "until": "smallest"},
    {"kind": "parallel", "until": "largest"},
    {"kind": "parallel", "until": "restart"},
    "round_robin",
    {"kind": "round_robin", "update": "batch"},
    {"kind": "sampled", "power": 0.5},
]
BUDGET = Budget(examples=6000, epochs=2)
TASKS: tuple[str, ...] = ("reviews", "questions", "sentences")


def recipe_of(*stages: dict[str, Any], **changes: Any) -> Recipe:
    values = tiny_recipe(ENCODER) | changes
    values["stages"] = [{"batch_size": 8, "epochs": 3, "name": f"s{place}", **s} for place, s in enumerate(stages)]
    return load_recipe(values).recipe


def fitted(recipe: Recipe, rows: dict[str, int], budget: Budget) -> Recipe:
    short = shorten(recipe, budget, keep_encoder=False)
    return cut(short, rows, TABLES, allowances(short, rows, TABLES, budget))


def seen(recipe: Recipe, index: int, rows: dict[str, int]) -> tuple[Counter[str], int]:
    """Examples of each task that the steps of a stage really hold, and the number of steps."""
    stage = recipe.stages[index]
    streams = {
        name: BatchStream(
            rows[name],
            StreamOptions(stage.batch_size_of(name), stage.subsample.get(name), stage.epoch_examples.get(name)),
            (recipe.seed, index, name),
        )
        for name in recipe.trained_tasks(stage)
    }
    build = builder(TABLES, "schedules", stage.schedule)
    schedule = build(stage.schedule, streams, seed=recipe.seed, stage=index, epochs=stage.epochs)
    steps = schedule.epoch_steps * stage.epochs
    steps = min(steps, stage.max_steps or steps)
    counts: Counter[str] = Counter()
    for step in map(schedule.step, range(steps)):
        counts.update({part.task: len(part.examples) for part in step.parts})
    return counts, steps


@settings(max_examples=60)
@given(
    schedule=st.sampled_from(SCHEDULES),
    sizes=st.tuples(*[st.integers(30, 900)] * 3),
    batch=st.integers(1, 20),
    cap=st.integers(60, 600),
    subsample=st.sampled_from([{}, {"questions": 0.34}, {"reviews": 21.0}]),
)
def test_a_cut_stage_sees_what_the_budget_allows_and_every_task(
    schedule: Any, sizes: tuple[int, int, int], batch: int, cap: int, subsample: dict[str, float]
) -> None:
    rows = dict(zip(TASKS, sizes, strict=True))
    recipe = recipe_of({"schedule": schedule, "batch_size": batch, "subsample": subsample})
    found = fitted(recipe, rows, Budget(examples=cap, epochs=2))
    counts, _ = seen(found, 0, rows)
    total = sum(counts.values())
    if schedule == {"kind": "sampled", "power": 0.5}:  # only drawn in proportion
        assert total <= cap * 1.6 + 6 * batch
        return
    assert counts.keys() == set(TASKS)
    assert total <= max(cap, 2 * 3 * batch)
    assert total >= min(cap, sum(seen(recipe, 0, rows)[0].values())) - 2 * 3 * batch
    assert total == pytest.approx(stage_examples(found, 0, rows, TABLES), abs=2 * 3 * batch)


def test_proportions_between_tasks_stay() -> None:
    rows = {"reviews": 8500, "questions": 85000, "sentences": 6000}
    counts, _ = seen(fitted(recipe_of({"schedule": "sequential"}), rows, BUDGET), 0, rows)
    assert counts["questions"] / counts["reviews"] == pytest.approx(10, rel=0.05)
    assert 5900 <= counts.total() <= 6000
    counts, _ = seen(fitted(recipe_of({"schedule": "interleaved"}), rows, BUDGET), 0, rows)
    assert set(counts.values()) == {2000}


def test_rows_are_not_repeated_sooner_than_in_full() -> None:
    rows = {"reviews": 8500, "questions": 85000, "sentences": 6000}
    found = fitted(recipe_of({"schedule": "interleaved"}), rows, BUDGET)
    stage = found.stages[0]
    stream = BatchStream(8500, StreamOptions(8, None, stage.epoch_examples["reviews"]), (13, 0, "reviews"))
    drawn = np.concatenate([stream.batch(index) for index in range(250)])
    assert len(np.unique(drawn)) == 2000


def test_stages_share_the_examples_in_proportion_but_none_goes_without() -> None:
    assert shares([300.0, 700.0], 100, 0.1) == [30.0, 70.0]
    assert shares([1.0, 999.0], 100, 0.1) == pytest.approx([10.0, 90.0])
    assert shares([1.0, 1.0, 998.0], 100, 0.1) == pytest.approx([10.0, 10.0, 80.0])
    assert shares([5.0, 90.0, 905.0], 1000, 0.1) == pytest.approx([100.0, 100.0, 800.0])
    assert shares([1.0] * 20, 100, 0.1) == pytest.approx([5.0] * 20)


@given(wanted=st.lists(st.floats(0.1, 1e6), min_size=1, max_size=12), least=st.floats(0, 0.99))
def test_shares_are_the_whole(wanted: list[float], least: float) -> None:
    given_ = shares(wanted, 1000, least)
    assert sum(given_) == pytest.approx(1000)
    assert min(given_) >= 1000 * min(least, 1 / len(wanted)) * (1 - 1e-9)


def test_a_run_within_the_budget_is_left_alone() -> None:
    rows = dict.fromkeys(TASKS, 24)
    recipe = recipe_of({"epochs": 2}, {"epochs": 1, "tasks": ["reviews"]})
    found = fitted(recipe, rows, Budget(examples=6000))
    kept = {"keep_checkpoints": 1}
    expected = recipe.with_changes(stages=[stage.model_copy(update=kept) for stage in recipe.stages])
    assert found == expected
    assert fitted(recipe, rows, BUDGETS["full"]).stages == expected.stages


def test_the_full_budget_changes_nothing() -> None:
    recipe = recipe_of({"keep_checkpoints": 3, "evaluate_every_steps": 2, "batch_size": dict.fromkeys(TASKS, 4)})
    assert shorten(recipe, BUDGETS["full"], keep_encoder=False) == recipe


def test_epochs_batches_dev_rows_rates_and_encoder() -> None:
    recipe = recipe_of(
        {
            "epochs": 10,
            "batch_size": {"reviews": 8, "questions": 2, "sentences": 64},
            "accumulation": 8,
            "optimizer": {"kind": "adamw", "lr": 8e-6, "head_lr": 1e-3},
        },
        encoder={"checkpoint": "owner/name", "revision": "abc"},
    )
    budget = Budget(epochs=2, batch_size=4, dev_rows=10, checkpoint="embedded", rate_factor=10.0)
    found = shorten(recipe, budget, keep_encoder=False)
    stage = found.stages[0]
    assert (stage.epochs, stage.accumulation) == (2, 4)
    assert stage.batch_size == {"reviews": 4, "questions": 2, "sentences": 4}
    assert stage.optimizer.model_dump()["lr"] == 8e-5
    assert stage.optimizer.model_dump()["head_lr"] == 1e-2
    assert (found.encoder.checkpoint, found.encoder.revision) == ("embedded", None)
    assert all(task.limit == {"train": 24, "dev": 10} for task in found.tasks.values())
    assert shorten(recipe, budget, keep_encoder=True).encoder == recipe.encoder


def test_an_encoder_that_is_a_folder_stays(tmp_path: Path) -> None:
    recipe = recipe_of({}, encoder={"checkpoint": str(tmp_path)})
    assert shorten(recipe, BUDGETS["small"], keep_encoder=False).encoder == recipe.encoder


def test_teachers_are_asked_about_no_more_rows_than_are_seen() -> None:
    rows = {"reviews": 8500, "questions": 85000, "sentences": 6000}
    recipe = recipe_of({}, {"distillation": {"teachers": ["s0"]}})
    found = fitted(recipe, rows, BUDGET)
    counts, _ = seen(found, 1, rows)
    assert found.stages[0].subsample == {}
    for task, share in found.stages[1].subsample.items():
        assert counts[task] <= share <= counts[task] + 8
    assert found.stages[1].subsample.keys() == set(TASKS)


@pytest.mark.parametrize("budget", ["smoke", "small"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_cut_recipes_are_valid(schedule: Any, budget: Any) -> None:
    rows = {"reviews": 8500, "questions": 85000, "sentences": 6000}
    recipe = recipe_of({"schedule": schedule}, {"tasks": ["reviews"], "distillation": {"teachers": ["s0"]}})
    found = fitted(recipe, rows, BUDGETS[budget])
    document = parse_document(recipe_yaml(found)).value
    assert load_recipe(cast("dict[str, Any]", document)).recipe == found
