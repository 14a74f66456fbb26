"""A recipe's single-task baselines: the same recipe with one task, and nothing that needs several."""

from collections.abc import Mapping
from typing import Any

from manyhead.balancing import BalancingOptions
from manyhead.errors import Problem, RecipeError
from manyhead.heads import RelatedHead
from manyhead.recipe.layers import plain
from manyhead.recipe.load import LoadedRecipe, load_recipe
from manyhead.recipe.schema import Recipe, Stage
from manyhead.regularisers import TaskRegulariser
from manyhead.schedules import SequentialSchedule

_BY_TASK = ("subsample", "epoch_examples")


def scored_tasks(recipe: Recipe) -> list[str]:
    """The tasks that sharing could help or hurt: those that are trained and scored."""
    trained = {name for stage in recipe.stages for name in recipe.trained_tasks(stage) if stage.pretraining is None}
    return [name for name, task in recipe.tasks.items() if name in trained and task.files.dev is not None]


def single_recipe(loaded: LoadedRecipe, task: str) -> LoadedRecipe:
    """The recipe of ``loaded`` with ``task`` alone.

    Stages that do not train the task are left out. Balancers and what else needs several tasks fall away: of one loss
    there is nothing to balance. All else, also the seed, stays. Raises `RecipeError` where the task has no recipe of
    its own.
    """
    recipe = loaded.recipe
    head = recipe.tasks[task].head
    if isinstance(head, RelatedHead):
        problem = f"the head of {task} reads the classes of {head.to}, so there is no model of {task} alone"
        path, line = loaded.place(f"tasks.{task}.head")
        raise RecipeError([Problem(problem, path, line, f"tasks.{task}.head", "a head of its own", "use linear")])
    kept = [stage for stage in recipe.stages if task in recipe.trained_tasks(stage)]
    names = {stage.name for stage in kept}
    dropped = {stage.name for stage in recipe.stages} - names
    values: dict[str, Any] = plain(recipe)
    values["name"] = f"{recipe.name}-{task}"
    values["tasks"] = {task: values["tasks"][task]}
    values["stages"] = [_stage(stage, recipe, task, dropped) for stage in kept]
    try:
        return load_recipe(values)
    except RecipeError as error:
        lines = "; ".join(str(problem) for problem in error.problems)
        raise RecipeError(
            [Problem(f"there is no recipe of {task} alone: {lines}", loaded.path, do="compare by hand: manyhead study")]
        ) from None


def _stage(stage: Stage, recipe: Recipe, task: str, dropped: set[str]) -> dict[str, Any]:
    values: dict[str, Any] = plain(stage)
    values["tasks"] = None
    values["batch_size"] = stage.batch_size_of(task)
    values |= {key: _only(values[key], task) for key in _BY_TASK}
    values["balanced"] = [name for name in stage.balanced if name == task]
    values["balancing"] = _balancing(stage, task)
    values["regularisers"] = [
        plain(each) | ({"tasks": None} if isinstance(each, TaskRegulariser) else {})
        for each in stage.regularisers
        if not isinstance(each, TaskRegulariser) or each.tasks is None or task in each.tasks
    ]
    if isinstance(stage.schedule, SequentialSchedule):
        values["schedule"] = {"kind": "sequential"}
    if stage.select_by.rpartition(".")[0] not in ("", task):
        values["select_by"] = "overall"
    if stage.distillation is not None:
        teachers = [name for name in stage.distillation.teachers if name not in dropped]
        values["distillation"] = {**values["distillation"], "teachers": teachers} if teachers else None
    if len(recipe.tasks) > 1 and stage.clip_by == "task":
        values["clip_by"] = "all"
    return values


def _balancing(stage: Stage, task: str) -> dict[str, Any]:
    """The balancer of one task: the constant that it puts before the task's loss, if it has one."""
    options = stage.balancing
    if isinstance(options, BalancingOptions) and options.kind == "weighted":
        return plain(options) | {"weights": _only(plain(options)["weights"], task)}
    return {"kind": "sum"}


def _only(values: Mapping[str, Any], task: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name == task}
