"""From the parts that were read to what trains: the model, and each stage's schedule, losses, optimiser and rate."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import nn

from manyhead.balancing.base import Balancer
from manyhead.build.parts import Parts
from manyhead.build.starting import take_weights
from manyhead.data.task_data import TaskData
from manyhead.encoder.seeding import seed_part
from manyhead.errors import UsageError
from manyhead.inference.model_folder import read_model
from manyhead.model import MultiTaskModel, build_model, build_objective, trainable_names
from manyhead.objectives.base import Objective
from manyhead.optimizers import GroupOptions
from manyhead.optimizers.groups import parameter_groups
from manyhead.pretraining.base import Pretraining, TextFacts
from manyhead.recipe.schema import Stage, Tables, Task
from manyhead.recipe.tables import builder
from manyhead.regularisers.base import Regulariser
from manyhead.schedules.base import Indices, Schedule, StreamOptions
from manyhead.schedules.streams import BatchStream
from manyhead.training.checkpoint import EXTRAS
from manyhead.training.clipping import Clipping
from manyhead.training.gradients import Gradients, JointGradients
from manyhead.training.losses import Lesson, TaskLosses, Teaching
from manyhead.training.stage_plan import StagePlan
from manyhead.training.step import Learner
from manyhead.training.task_gradients import TaskGradients

SCORE_BUCKETS = 5
"""Buckets of a score that ``balanced`` draws equally."""


def new_model(parts: Parts) -> MultiTaskModel:
    """The recipe's model on the device, with the source's weights, ready to train.

    Heads are kept as `Start` says. Without a source all weights are new.
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
    return _schedule(parts, index, stage, _streams(parts, index, stage))


def _streams(parts: Parts, index: int, stage: Stage) -> dict[str, BatchStream]:
    """The batches of each task that the stage trains."""
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
        lengths = _lengths(data) if stage.length_window else None
        streams[name] = BatchStream(data.tokens.n_examples, options, (recipe.seed, index, name), lengths)
    return streams


def _schedule(parts: Parts, index: int, stage: Stage, streams: Mapping[str, BatchStream]) -> Schedule:
    build = builder(parts.tables, "schedules", stage.schedule)
    return build(stage.schedule, streams, seed=parts.recipe.seed, stage=index, epochs=stage.epochs)


def _with_weights(parts: Parts) -> MultiTaskModel:
    if parts.source is not None and parts.source.kind != "manyhead":
        model = build_model(parts.recipe, parts.tables, parts.config, parts.source.folder)
        parts.start.take_heads(model)
        return model
    model = build_model(parts.recipe, parts.tables, parts.config, None)
    if parts.source is None:
        return model
    take_weights(model, parts.recipe, read_model(parts.source.folder, plugins=parts.recipe.plugins))
    return model


def _plan(parts: Parts, model: MultiTaskModel, index: int, stage: Stage) -> StagePlan:
    recipe, tables = parts.recipe, parts.tables
    names = recipe.trained_tasks(stage)
    streams = _streams(parts, index, stage)
    schedule = _schedule(parts, index, stage, streams)
    total = schedule.epoch_steps * stage.epochs
    total = total if stage.max_steps is None else min(total, stage.max_steps)
    data = {name: _trained_on(parts.data[name, "train"], recipe.tasks[name]) for name in names}
    losses = {name: _losses(recipe.tasks[name], tables, data[name]) for name in names}
    regularisers: list[Regulariser] = [
        builder(tables, "regularisers", options)(options, names, model, total) for options in stage.regularisers
    ]
    pretraining: Pretraining | None = None
    if stage.pretraining is not None:
        facts = TextFacts.of(parts.tokenizer, {name: recipe.tasks[name] for name in names})
        seed_part(recipe.seed, "pretraining", stage.name)
        pretraining = builder(tables, "pretraining", stage.pretraining)(stage.pretraining, facts, model)
    balancer: Balancer = builder(tables, "balancing", stage.balancing)(
        stage.balancing, {name: recipe.tasks[name] for name in names}
    )
    extras = _extras(balancer, losses, pretraining, regularisers).to(parts.hardware.device)
    trainable = trainable_names(model, stage.freeze)
    named = [(name, parameter) for name, parameter in model.named_parameters() if name in trainable]
    named += [(EXTRAS + name, parameter) for name, parameter in extras.named_parameters() if parameter.requires_grad]
    options = stage.optimizer
    if not isinstance(options, GroupOptions):
        raise UsageError(
            f"stages.{index}.optimizer: the options of '{options.kind}' say no rates; expected a subclass of "
            "manyhead.optimizers.GroupOptions; change the plugin"
        )
    groups = parameter_groups(options, named, model.encoder.depths("encoder."), model.encoder.n_layers)
    clipping = Clipping(stage.clip_norm if stage.clip_by == "all" else None, stage.clip_always)
    teaching = None
    if stage.distillation is not None:
        teaching = Teaching(stage.distillation.weight, stage.distillation.temperature)
    learner = Learner(
        lesson=Lesson(model, data, losses, pretraining, regularisers, teaching, recipe.encoder.segment_ids),
        balancer=balancer,
        gradients=_gradients(stage, model, balancer, stage.accumulation),
        gradients_for=partial(_gradients, stage, model, balancer),
        optimizer=builder(tables, "optimizers", options)(options, groups),
        clipping=clipping,
        accumulation=stage.accumulation,
        extras=extras,
        lr=options.lr,
        seed=recipe.seed,
        stage=stage.name,
        skips=stage.on_nonfinite == "skip",
    )
    rate = builder(tables, "rates", stage.rate)(stage.rate, total, schedule.epoch_steps)
    rows = _RowsInUse(streams)
    fitted = {
        name: (each, rows[name] if name in rows else np.arange(each.n_examples))
        for name, each in parts.split("train").items()
        if model.threshold(name) is not None
    }
    return StagePlan(stage, learner, schedule, rate, total, trainable, rows, fitted)


class _RowsInUse(Mapping[str, Indices]):
    """The rows of each stream, listed when asked for: few stages need them, and they are as many as the data."""

    def __init__(self, streams: Mapping[str, BatchStream]) -> None:
        self._streams = streams

    def __getitem__(self, task: str) -> Indices:
        return self._streams[task].rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._streams)

    def __len__(self) -> int:
        return len(self._streams)


def _gradients(stage: Stage, model: MultiTaskModel, balancer: Balancer, accumulation: int) -> Gradients:
    """One backward for all tasks of each of ``accumulation`` pieces where that is enough, else one for each task."""
    clip_norm = stage.clip_norm if stage.clip_by == "task" else None
    cut = balancer.needs_losses and accumulation > 1
    if not (balancer.needs_gramian or cut or clip_norm is not None):
        return JointGradients(balancer)
    return TaskGradients(balancer, model, Clipping(clip_norm, stage.clip_always))


def _extras(
    balancer: Balancer,
    losses: Mapping[str, TaskLosses],
    pretraining: Pretraining | None,
    regularisers: Sequence[Regulariser],
) -> nn.ModuleDict:
    """The modules of a stage that only training has; objectives without a state are none."""
    extras = nn.ModuleDict({"balancer": balancer, "regularisers": nn.ModuleList(regularisers)})
    if pretraining is not None:
        extras["pretraining"] = pretraining
    extras["losses"] = nn.ModuleDict(
        {
            f"task_{name}": nn.ModuleList(
                each
                for each in (task.main, *(auxiliary for _, auxiliary in task.auxiliary))
                if isinstance(each, nn.Module)
            )
            for name, task in losses.items()
        }
    )
    return extras


def _trained_on(data: TaskData, task: Task) -> TaskData:
    """The training rows with their targets as the task casts them."""
    if task.target_cast == "none" or data.targets is None:
        return data
    return replace(data, targets=np.floor(data.targets))


def _losses(task: Task, tables: Tables, data: TaskData) -> TaskLosses:
    auxiliary = tuple(
        (float(getattr(options, "weight", 1.0)), build_objective(task, tables, loss=options))
        for options in task.auxiliary
    )
    return TaskLosses(_objective(task, tables, data), auxiliary)


def _objective(task: Task, tables: Tables, data: TaskData) -> Objective:
    counts = None
    if task.kind == "classification" and data.targets is not None:
        counts = np.bincount(data.targets, minlength=len(task.label_names)).tolist()
    return build_objective(task, tables, counts)


def _lengths(data: TaskData) -> NDArray[np.int32]:
    """Tokens of each example."""
    lengths = data.tokens.lengths()
    return lengths.reshape(data.n_examples, -1).sum(1, dtype=np.int32) if len(lengths) > data.n_examples else lengths


def _groups(data: TaskData, task: Task) -> NDArray[np.integer]:
    """Each row's class, or the bucket of its score."""
    assert data.targets is not None
    if task.kind == "classification":
        return data.targets.astype(np.int64, copy=False)
    low, high = task.range or (float(data.targets.min()), float(data.targets.max()))
    share = (data.targets - low) / max(high - low, 1e-12)
    return np.clip((share * SCORE_BUCKETS).astype(np.int8), 0, SCORE_BUCKETS - 1)
