"""A tiny model of three tasks and passes through it, as a step makes them: what regularisers are tried on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manyhead.batching import pack
from manyhead.data.cache import load_task_data
from manyhead.data.task_data import TaskData
from manyhead.encoder.load import read_config
from manyhead.encoder.tokenizer import load_tokenizer
from manyhead.model import MultiTaskModel, build_model, build_objective
from manyhead.objectives.base import Objective, Piece
from manyhead.packed import Passed
from manyhead.recipe.load import load_recipe
from manyhead.recipe.schema import Options
from manyhead.recipe.tables import TABLES, builder
from manyhead.regularisers import REGULARISERS
from manyhead.regularisers.base import Regulariser, TrainingPass
from manyhead.schedules.base import Part
from tiny import tiny_encoder, tiny_recipe

TASKS = ("reviews", "questions", "sentences")
"""Five classes; two classes by one logit; a score by the cosine of siamese texts."""


@dataclass(frozen=True)
class World:
    """A model, its tasks' losses and their rows."""

    model: MultiTaskModel
    objectives: Mapping[str, Objective]
    data: Mapping[str, TaskData]

    def done(self, tasks: Sequence[str] = TASKS, rows: Sequence[int] = range(5)) -> TrainingPass:
        """A pass of some rows of each of ``tasks``."""
        parts = [Part(task, np.array(rows)) for task in tasks]
        batch = pack(parts, {task: data.tokens for task, data in self.data.items()})
        passed = self.model.run(batch)
        pieces = {task: self.piece(task, passed, rows) for task in tasks}
        losses = {task: self.losses(task, piece) for task, piece in pieces.items()}
        objectives = {task: self.objectives[task] for task in tasks}
        return TrainingPass(self.model, batch, passed, pieces, objectives, losses, self.losses)

    def piece(self, task: str, passed: Passed, rows: Sequence[int]) -> Piece:
        targets = self.data[task].targets
        assert targets is not None
        return Piece(passed.outputs[task], passed.vectors[task], torch.from_numpy(targets[list(rows)]))

    def losses(self, task: str, piece: Piece) -> Tensor:
        return self.objectives[task].losses(piece)


def new_world(folder: Path, *, dropout: float = 0.0) -> World:
    """A world whose encoder lies in ``folder``; heads have their own dropout in training mode."""
    if not folder.exists():
        tiny_encoder(folder)
    loaded = load_recipe(tiny_recipe(folder))
    tokenizer = load_tokenizer(folder)
    data = {task: load_task_data(task, "train", loaded.recipe, tokenizer) for task in TASKS}
    config = read_config(folder, dropout=dropout, attention_dropout=dropout)
    model = build_model(loaded.recipe, loaded.tables, config, folder)
    objectives = {name: build_objective(task, loaded.tables) for name, task in loaded.recipe.tasks.items()}
    return World(model, objectives, data)


def new_regulariser(
    world: World, kind: str, *, tasks: Sequence[str] = TASKS, total_steps: int = 100, **options: Any
) -> Regulariser:
    """The member ``kind``, built as a stage that trains ``tasks`` builds it."""
    given: Options = REGULARISERS[kind].options(
        kind=kind, **({"tasks": options.pop("only")} if "only" in options else {}), **options
    )
    return builder(TABLES, "regularisers", given)(given, tasks, world.model, total_steps)


def gradients(world: World, penalties: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of the sum of ``penalties`` for every parameter that has one."""
    for parameter in world.model.parameters():
        parameter.grad = None
    torch.cat(list(penalties.values())).sum().backward()
    return {
        name: each.grad.to_dense().clone() for name, each in world.model.named_parameters() if each.grad is not None
    }
