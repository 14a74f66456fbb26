"""Equal budgets: how many examples each side of a verdict sees.

The shared run comes first, cut to a number of examples where one is asked for. Each single-task run then sees, stage by
stage, as many examples as the shared run did: of all tasks together (``run``, so that every run costs the same) or of
its own task (``task``, so that all single-task runs together cost what the shared one does).
"""

from collections.abc import Mapping
from typing import Literal

from manyhead.errors import UsageError
from manyhead.recipe.load import LoadedRecipe
from manyhead.recipe.schema import Recipe, Tables
from manyhead.studies.budget import allowances, begun_epochs, cut, scored_by_epoch, seen_examples
from manyhead.studies.schema import Budget

Equal = Literal["run", "task"]


def shared_budget(recipe: Recipe, rows: Mapping[str, int], tables: Tables, examples: int | None) -> Recipe:
    """The shared recipe, seeing at most ``examples`` over all stages. ``rows``: usable training rows by task."""
    if examples is not None:
        return cut(recipe, rows, tables, allowances(recipe, rows, tables, Budget(examples=examples)))
    return recipe.with_changes(stages=[scored_by_epoch(stage) for stage in recipe.stages])


def single_budget(single: LoadedRecipe, shared: Recipe, rows: Mapping[str, int], equal: Equal) -> Recipe:
    """The recipe of one task alone, seeing as many examples as ``shared`` did, in as many epochs.

    Epochs count the evaluations that a checkpoint is picked from, so both sides have the same number of them. Where
    stages of the shared run do not train the task, ``run`` gives their examples to those that do.
    """
    (task,) = single.recipe.tasks
    seen = {
        stage.name: seen_examples(shared, index, stage, rows, single.tables)
        for index, stage in enumerate(shared.stages)
    }
    own = {stage.name: seen[stage.name].get(task, 0.0) for stage in single.recipe.stages}
    wanted = own if equal == "task" else {name: sum(seen[name].values()) for name in own}
    if equal == "run":
        factor = sum(sum(each.values()) for each in seen.values()) / sum(wanted.values())
        wanted = {name: examples * factor for name, examples in wanted.items()}
    if min(wanted.values()) < 1:
        raise UsageError(f"the shared run sees no example of {task}; expected some of each task; raise --examples")
    epochs = {stage.name: begun_epochs(shared, index, rows, single.tables) for index, stage in enumerate(shared.stages)}
    stages = [
        scored_by_epoch(stage).model_copy(
            update={
                "max_steps": None,
                "epochs": epochs[stage.name],
                "epoch_examples": {task: max(1, round(wanted[stage.name] / epochs[stage.name]))},
            }
        )
        for stage in single.recipe.stages
    ]
    return single.recipe.with_changes(stages=stages)
