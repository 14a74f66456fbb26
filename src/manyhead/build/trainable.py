"""What the stages of a recipe train, which can only be told where the encoder's configuration is known."""

import difflib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TypedDict

from transformers import PretrainedConfig

from manyhead.balancing import BalancingOptions
from manyhead.encoder.per_task import task_key
from manyhead.errors import Problem, RecipeError
from manyhead.model import MultiTaskModel, empty_model, trainable_names
from manyhead.recipe.schema import Recipe, Stage, Tables

_HEADS = "heads."


def trainable_problems(recipe: Recipe, tables: Tables, config: PretrainedConfig) -> list[Problem]:
    """What is wrong with what the stages freeze, for an encoder of ``config``: keys without places.

    A pattern that matches no parameter, a stage in which nothing trains, a balancer of gradients where the tasks share
    nothing that trains, and heads that do not fit. Raises `UsageError` where the encoder does not.
    """
    try:
        model = empty_model(recipe, tables, config)
    except RecipeError as error:
        return list(error.problems)
    return [
        problem
        for index, stage in enumerate(recipe.stages)
        for problem in _stage_problems(f"stages.{index}", stage, recipe, model)
    ]


class StageParameters(TypedDict):
    """Parameters of a recipe's model: all, those of all tasks, of one task alone, and those that each stage trains."""

    total: int
    shared: int
    per_task: dict[str, int]
    trained: int
    stages: dict[str, int]


def stage_parameters(recipe: Recipe, tables: Tables, config: PretrainedConfig) -> StageParameters:
    """Counts without weights. A stage trains what it does not freeze of the shared parameters and of its own tasks.

    ``trained`` counts what any stage trains. The encoder's own pooler counts where `pooler` pooling uses it: bert-base
    has 109,482,240 with it and 108,891,648 without. Raises `RecipeError` and `UsageError` where the model cannot be
    built.
    """
    model = empty_model(recipe, tables, config)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    own: dict[str | None, int] = dict.fromkeys([None, *recipe.tasks], 0)
    for name, size in sizes.items():
        own[model.task_of(name)] += size
    names = {stage.name: set(_trained(stage, recipe, model)) for stage in recipe.stages}
    return StageParameters(
        total=sum(sizes.values()),
        shared=own[None],
        per_task={task: own[task] for task in recipe.tasks},
        trained=sum(sizes[name] for name in set[str]().union(*names.values())),
        stages={stage: sum(sizes[name] for name in found) for stage, found in names.items()},
    )


def _trained(stage: Stage, recipe: Recipe, model: MultiTaskModel) -> dict[str, str | None]:
    """The parameters that a stage trains, each with the task whose alone it is. Pretraining runs no heads."""
    owners = {name: model.task_of(name) for name in trainable_names(model, stage.freeze)}
    tasks = {None, *recipe.trained_tasks(stage)}
    heads = stage.pretraining is None
    return {name: task for name, task in owners.items() if task in tasks and (heads or not name.startswith(_HEADS))}


def _stage_problems(at: str, stage: Stage, recipe: Recipe, model: MultiTaskModel) -> Iterator[Problem]:
    names = [name for name, _ in model.named_parameters()]
    for place, pattern in enumerate(stage.freeze):
        if not any(fnmatchcase(name, pattern) for name in names):
            expected, do = _near(pattern, names)
            yield Problem(f"'{pattern}' matches no parameter", key=f"{at}.freeze.{place}", expected=expected, do=do)
    owners, experts = _trained(stage, recipe, model), recipe.encoder.experts
    why = f", since the experts '{experts.kind}' keep the encoder's own weights" if experts and model.fixed else ""
    if not owners:
        do = "remove a pattern" if stage.freeze else "choose another head, or leave experts out"
        problem = f"nothing is left to train in stage '{stage.name}'{why}"
        yield Problem(problem, key=f"{at}.freeze", do=do)
        return
    if isinstance(stage.balancing, BalancingOptions) and stage.balancing.gradients and None not in owners.values():
        problem = f"'{stage.balancing.kind}' weighs gradients of parameters that tasks share, and none of them trains"
        yield Problem(f"{problem}{why}", key=f"{at}.balancing", do="write sum, or let a shared part train")


def _near(pattern: str, names: Sequence[str]) -> tuple[str, str | None]:
    """What a pattern could have been: the parts of the model, and the name or beginning of names that is nearest."""
    beginnings = dict.fromkeys(
        f"{name[:place]}.*" for name in names for place, letter in enumerate(name) if letter == "."
    )
    parts = dict.fromkeys(name.partition(".")[0] + ".*" for name in names)
    known = {spelling: name for name in (*beginnings, *names) for spelling in (name, name.replace(task_key(""), ""))}
    near = difflib.get_close_matches(pattern, known, n=1)
    expected = f"a pattern of parameter names, such as {', '.join(parts)}"
    return expected, f"did you mean '{known[near[0]]}'?" if near else None
