"""Starting from a run or model of ours: which of its weights a model takes over."""

from torch import nn

from manyhead.encoder.copied_encoder import CopiedEncoder
from manyhead.encoder.per_task import PerTask
from manyhead.errors import UsageError
from manyhead.inference.model_folder import StoredModel
from manyhead.model import MultiTaskModel
from manyhead.recipe.schema import Recipe, Task


def take_weights(model: MultiTaskModel, recipe: Recipe, stored: StoredModel) -> None:
    """Gives ``model`` the weights of ``stored`` that fit its ``recipe``.

    The encoder's always; those of pooling and projections where both recipes have the same; of experts and heads task
    by task, where the task has the same. Copies start from a shared encoder, or each from the copy of its task.
    Raises `UsageError` where the stored model has copies that are not asked for, or none for a task.
    """
    _check_copies(model, stored)
    before, now = stored.recipe.encoder, recipe.encoder
    _take(_parts(model.encoder), _parts(stored.model.encoder))
    if before.pooling == now.pooling:
        _take(model.pooling, stored.model.pooling)
    if before.projections == now.projections:
        _take(model.projections, stored.model.projections)
    for name, task in recipe.tasks.items():
        if name not in stored.recipe.tasks:
            continue
        if before.experts == now.experts and name in model.experts.tasks:
            _take(model.experts.of(name), stored.model.experts.of(name))
        if _same_head(stored.recipe.tasks[name], task):
            _take(model.head(name), stored.model.head(name))
            threshold = stored.model.threshold(name)
            if threshold is not None:
                model.set_threshold(name, float(threshold))


def _check_copies(model: MultiTaskModel, stored: StoredModel) -> None:
    if not isinstance(stored.model.encoder, CopiedEncoder):
        return
    place = f"encoder.checkpoint: {stored.folder} has one encoder for each task"
    if not isinstance(model.encoder, CopiedEncoder):
        raise UsageError(f"{place}, and none for all; expected experts: copies; write it, or start from another one")
    known = stored.model.encoder.copies.tasks
    missing = [task for task in model.encoder.copies.tasks if task not in known]
    if missing:
        raise UsageError(
            f"{place}, and none for {', '.join(missing)}; expected tasks among {', '.join(known)}; "
            "rename the task, or start from another one"
        )


def _parts(encoder: nn.Module) -> nn.Module:
    return encoder.copies if isinstance(encoder, CopiedEncoder) else encoder


def _take(own: nn.Module, other: nn.Module) -> None:
    if not isinstance(own, PerTask):
        own.load_state_dict(other.state_dict())
        return
    for task in own.tasks:
        own.of(task).load_state_dict((other.of(task) if isinstance(other, PerTask) else other).state_dict())


def _same_head(before: Task, now: Task) -> bool:
    def shape(task: Task) -> tuple[object, ...]:
        # Labels as lists: two mappings in another order are equal, their classes are not.
        return task.kind, task.label_cells, task.label_names, task.head, task.loss, task.sequences_per_example

    return shape(before) == shape(now)
