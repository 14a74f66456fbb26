"""What the two sides of a verdict are made of."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manyhead.data.examples import read_examples
from manyhead.errors import DataError, RecipeError, UsageError
from manyhead.recipe.load import LoadedRecipe, load_recipe
from manyhead.recipe.schema import Recipe
from manyhead.studies.budget import seen_examples, stage_examples
from manyhead.studies.planner import Options, Planner
from manyhead.studies.schema import Budget
from manyhead.studies.verdict.budget import Equal, shared_budget, single_budget
from manyhead.studies.verdict.single import scored_tasks, single_recipe
from manyhead.studies.verdict.tuning import Side

Write = Callable[..., Path]
TASKS = ("reviews", "questions", "sentences")


def rows_of(loaded: LoadedRecipe) -> dict[str, int]:
    return Planner(Options(Budget(), seeds=1)).data_of(loaded.recipe)[0]


def test_what_needs_several_tasks_falls_away_and_the_rest_stays(write_recipe: Write) -> None:
    stage: dict[str, Any] = {
        "balancing": {"kind": "pcgrad", "weights": {"questions": 2.0}},
        "schedule": "interleaved",
        "batch_size": {"reviews": 4, "questions": 8, "sentences": 6},
        "subsample": {"questions": 0.5},
        "balanced": ["reviews"],
        "clip_by": "task",
        "regularisers": [{"kind": "r_drop", "tasks": ["reviews"]}, {"kind": "l1", "weight": 1e-6}],
        "select_by": "questions.f1",
    }
    loaded = load_recipe(write_recipe("a", stage))
    single = single_recipe(loaded, "reviews").recipe
    assert list(single.tasks) == ["reviews"]
    assert single.tasks["reviews"] == loaded.recipe.tasks["reviews"]
    assert single.seed == loaded.recipe.seed
    assert single.encoder == loaded.recipe.encoder
    (own,) = single.stages
    assert (own.balancing.kind, own.clip_by, own.select_by) == ("sum", "all", "overall")
    assert own.batch_size == 4
    assert own.balanced == ["reviews"]
    assert own.subsample == {}
    assert [each.kind for each in own.regularisers] == ["r_drop", "l1"]
    other = single_recipe(loaded, "questions").recipe.stages[0]
    assert (other.subsample, other.balanced, other.select_by) == ({"questions": 0.5}, [], "questions.f1")
    assert [each.kind for each in other.regularisers] == ["l1"]


def test_a_constant_before_the_loss_is_kept(write_recipe: Write) -> None:
    loaded = load_recipe(write_recipe("a", {"balancing": {"kind": "weighted", "weights": {"questions": 3.0}}}))
    balancing: Any = single_recipe(loaded, "questions").recipe.stages[0].balancing
    assert balancing.weights == {"questions": 3.0}


def test_stages_of_other_tasks_are_left_out(write_recipe: Write) -> None:
    loaded = load_recipe(write_recipe("a", {}, {"tasks": ["reviews"]}, {"tasks": ["questions", "sentences"]}))
    assert [stage.name for stage in single_recipe(loaded, "reviews").recipe.stages] == ["s0", "s1"]
    assert [stage.name for stage in single_recipe(loaded, "sentences").recipe.stages] == ["s0", "s2"]


def test_a_head_that_reads_another_task_has_no_model_alone(write_recipe: Write) -> None:
    path = write_recipe("a")
    related = {"kind": "related", "to": "reviews"}
    loaded = load_recipe(path, overrides={"tasks.second": {**_reviews(path), "head": related}})
    with pytest.raises(RecipeError, match="no model of second alone"):
        single_recipe(loaded, "second")


def _reviews(path: Path) -> dict[str, Any]:
    return load_recipe(path).recipe.tasks["reviews"].model_dump(by_alias=True)


@pytest.mark.parametrize("equal", ["task", "run"])
@pytest.mark.parametrize("schedule", ["interleaved", "sequential", "shuffled", "sampled", "round_robin"])
@pytest.mark.parametrize("examples", [None, 60])
def test_budgets_are_equal(write_recipe: Write, equal: Equal, schedule: str, examples: int | None) -> None:
    limits = {f"tasks.{task}.limit": {"train": rows} for task, rows in zip(TASKS, (40, 24, 12), strict=True)}
    loaded = load_recipe(write_recipe("a", {"schedule": schedule, "batch_size": 4, "epochs": 3}), overrides=limits)
    rows = rows_of(loaded)
    shared = shared_budget(loaded.recipe, rows, loaded.tables, examples)
    seen = seen_examples(shared, 0, shared.stages[0], rows, loaded.tables)
    if examples is not None:
        assert sum(seen.values()) <= max(examples, 12 * 3)
    for task in TASKS:
        single = single_recipe(loaded, task)
        cut = single_budget(single, shared, rows, equal)
        own = stage_examples(cut, 0, {task: rows[task]}, single.tables)
        wanted = seen[task] if equal == "task" else sum(seen.values())
        assert abs(own - wanted) <= 3 * 4  # a batch an epoch
        assert cut.stages[0].epochs == shared.stages[0].epochs
        assert cut.stages[0].evaluate_every_steps is None


def test_both_sides_are_evaluated_as_often_where_steps_end_a_stage(write_recipe: Write) -> None:
    loaded = load_recipe(write_recipe("a", {"batch_size": 4, "epochs": 10, "max_steps": 25}))
    rows = rows_of(loaded)
    shared = shared_budget(loaded.recipe, rows, loaded.tables, None)
    epoch = seen_examples(
        shared, 0, shared.stages[0].model_copy(update={"epochs": 1, "max_steps": None}), rows, loaded.tables
    )
    seen = seen_examples(shared, 0, shared.stages[0], rows, loaded.tables)
    for task in TASKS:
        cut = single_budget(single_recipe(loaded, task), shared, rows, "task")
        assert cut.stages[0].epochs == math.ceil(seen[task] / epoch[task]) < 10


def test_dev_that_cannot_be_divided_is_told_before_anything_is_run(write_recipe: Write, tmp_path: Path) -> None:
    from manyhead.studies.verdict import run_verdict

    with pytest.raises(DataError, match="1 dev rows of reviews cannot be divided"):
        run_verdict(write_recipe("a"), out=tmp_path / "v", overrides={"tasks.reviews.limit": {"dev": 1}})
    assert not (tmp_path / "v").exists()


def test_examples_of_stages_that_do_not_train_the_task_go_to_the_others(write_recipe: Write) -> None:
    loaded = load_recipe(write_recipe("a", {"epochs": 1}, {"tasks": ["reviews"], "epochs": 1}))
    rows = rows_of(loaded)
    single = single_recipe(loaded, "questions")
    cut = single_budget(single, loaded.recipe, rows, "run")
    total = sum(stage_examples(loaded.recipe, index, rows, loaded.tables) for index in range(2))
    assert abs(stage_examples(cut, 0, rows, single.tables) - total) <= 8


def test_a_task_that_is_never_trained_is_not_compared(write_recipe: Write) -> None:
    loaded = load_recipe(write_recipe("a", {"tasks": ["reviews", "questions"]}))
    assert scored_tasks(loaded.recipe) == ["reviews", "questions"]


def test_a_recipe_of_one_task_is_refused(write_recipe: Write, tmp_path: Path) -> None:
    from manyhead.studies.verdict import run_verdict

    with pytest.raises(UsageError, match="1 task that is trained and has dev data"):
        run_verdict(write_recipe("a", {"tasks": ["reviews"]}), out=tmp_path / "v")
    with pytest.raises(UsageError, match="has a grid"):
        run_verdict(write_recipe("b", grid={"seed": [1, 2]}), out=tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_all_seeds_are_scored_on_the_same_rows(write_recipe: Write) -> None:
    cut = {"tasks.reviews.files": {"train": "reviews.train.csv", "dev": {"from": "train", "fraction": 0.5}}}
    recipe = load_recipe(write_recipe("a"), overrides=cut).recipe
    sides = [Side("shared", None, recipe, {}).run(1.0, number).recipe for number in range(2)]
    assert [side.seed for side in sides] == [recipe.seed, recipe.seed + 1]
    first, second = (read_task_ids(side) for side in sides)
    assert first == second


def read_task_ids(recipe: Recipe) -> list[str]:
    path = Path(recipe.data_dir) / "reviews.train.csv"
    return [example.id for example in read_examples("reviews", recipe.tasks["reviews"], "dev", path, seed=recipe.seed)]
