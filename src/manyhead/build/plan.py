"""From the parts that were read to what trains: the model, and each stage's schedule, losses, optimiser and rate."""

import numpy as np
from numpy.typing import NDArray

from manyhead.build.parts import Parts
from manyhead.data.task_data import TaskData
from manyhead.errors import UsageError
from manyhead.inference.model_folder import read_model
from manyhead.model import MultiTaskModel, build_model, build_objective
from manyhead.objectives.base import Objective
from manyhead.optimizers import GroupOptions
from manyhead.optimizers.groups import parameter_groups
from manyhead.recipe.schema import Stage, Tables, Task
from manyhead.recipe.tables import builder
from manyhead.schedules.base import Schedule, StreamOptions
from manyhead.schedules.streams import BatchStream
from manyhead.training.stages import StagePlan
from manyhead.training.step import Learner

SCORE_BUCKETS = 5
"""Buckets of a score that ``balanced`` draws equally."""


def new_model(parts: Parts) -> MultiTaskModel:
    """The recipe's model on the device, with the source's weights, ready to train.

    From a run or model of ours, heads of equal labels are kept. Without a source all weights are new.
    """
    model = _with_weights(parts).to(parts.hardware.device)
    model.autocast = parts.hardware.autocast
    model.encoder.sparse_embedding_gradients(parts.hardware.device == "cpu")
    return model


def plan_stages(parts: Parts, model: MultiTaskModel) -> list[StagePlan]:
    """Every stage of the recipe, built over one model."""
    return [_plan(parts, model, index, stage) for index, stage in enumerate(parts.recipe.stages)]


def plan_schedule(parts: Parts, index: int, stage: Stage) -> Schedule:
    """The schedule of stage ``index``."""
    recipe, train_data = parts.recipe, parts.split("train")
    streams: dict[str, BatchStream] = {}
    for name in recipe.trained_tasks(stage):
        data = train_data[name]
        options = StreamOptions(
            batch_size=stage.batch_size_of(name),
            subsample=stage.subsample.get(name),
            epoch_examples=stage.epoch_examples.get(name),
            length_window=stage.length_window,
            groups=_groups(data, recipe.tasks[name]) if name in stage.balanced else None,
        )
        lengths = data.tokens.lengths().reshape(data.tokens.n_examples, -1).sum(1)
        streams[name] = BatchStream(data.tokens.n_examples, options, (recipe.seed, index, name), lengths)
    build = builder(parts.tables, "schedules", stage.schedule)
    return build(stage.schedule, streams, seed=recipe.seed, stage=index, epochs=stage.epochs)


def _with_weights(parts: Parts) -> MultiTaskModel:
    if parts.source is not None and parts.source.kind != "manyhead":
        return build_model(parts.recipe, parts.tables, parts.config, parts.source.folder)
    model = build_model(parts.recipe, parts.tables, parts.config, None)
    if parts.source is None:
        return model
    stored = read_model(parts.source.folder, plugins=parts.recipe.plugins)
    model.encoder.load_state_dict(stored.model.encoder.state_dict())
    if stored.recipe.encoder.pooling == parts.recipe.encoder.pooling:
        model.pooling.load_state_dict(stored.model.pooling.state_dict())
    for name, task in parts.recipe.tasks.items():
        before = stored.recipe.tasks.get(name)
        if before is not None and _same_head(before, task):
            model.head(name).load_state_dict(stored.model.head(name).state_dict())
    return model


def _plan(parts: Parts, model: MultiTaskModel, index: int, stage: Stage) -> StagePlan:
    recipe, tables = parts.recipe, parts.tables
    names = recipe.trained_tasks(stage)
    train_data = {name: parts.data[name, "train"] for name in names}
    schedule = plan_schedule(parts, index, stage)
    total = schedule.epoch_steps * stage.epochs
    total = total if stage.max_steps is None else min(total, stage.max_steps)
    options = stage.optimizer
    if not isinstance(options, GroupOptions):
        raise UsageError(
            f"stages.{index}.optimizer: the options of '{options.kind}' say no rates; expected a subclass of "
            "manyhead.optimizers.GroupOptions; change the plugin"
        )
    groups = parameter_groups(
        options, list(model.named_parameters()), model.encoder.depths("encoder."), model.encoder.n_layers
    )
    learner = Learner(
        model=model,
        data=train_data,
        objectives={name: _objective(recipe.tasks[name], tables, train_data[name]) for name in names},
        balancer=builder(tables, "balancing", stage.balancing)(stage.balancing, names),
        optimizer=builder(tables, "optimizers", options)(options, groups),
        clip_norm=stage.clip_norm,
        accumulation=stage.accumulation,
        segment_ids=recipe.encoder.segment_ids,
        lr=options.lr,
        seed=recipe.seed,
        stage=stage.name,
    )
    rate = builder(tables, "rates", stage.rate)(stage.rate, total, schedule.epoch_steps)
    return StagePlan(stage, learner, schedule, rate, total)


def _objective(task: Task, tables: Tables, data: TaskData) -> Objective:
    counts = None
    if task.kind == "classification" and data.targets is not None:
        counts = np.bincount(data.targets, minlength=len(task.label_names)).tolist()
    return build_objective(task, tables, counts)


def _groups(data: TaskData, task: Task) -> NDArray[np.int64]:
    """Each row's class, or the bucket of its score."""
    assert data.targets is not None
    if task.kind == "classification":
        return data.targets.astype(np.int64)
    low, high = task.range or (float(data.targets.min()), float(data.targets.max()))
    share = (data.targets - low) / max(high - low, 1e-12)
    return np.clip((share * SCORE_BUCKETS).astype(np.int64), 0, SCORE_BUCKETS - 1)


def _same_head(before: Task, now: Task) -> bool:
    def shape(task: Task) -> tuple[object, ...]:
        # Labels as lists: two mappings in another order are equal, their classes are not.
        return task.kind, task.label_cells, task.label_names, task.head, task.loss, task.sequences_per_example

    return shape(before) == shape(now)
