"""The multi-task model: one shared encoder with the tasks' experts in it, pooling, projections, and a head per task.

`build_model` makes one from a recipe; `MultiTaskModel.run` takes a packed batch of any tasks through the encoder once
and each task's rows through its head.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PretrainedConfig

from manyhead.encoder.copied_encoder import CopiedEncoder
from manyhead.encoder.load import build_encoder, check_limits, empty_encoder
from manyhead.encoder.packed_encoder import PackedEncoder, TokenStates
from manyhead.encoder.per_task import PerTask, task_in, task_key
from manyhead.encoder.sandwich import add_sandwich_norm
from manyhead.encoder.seeding import seed_part
from manyhead.encoder.trunk import Trunk
from manyhead.errors import CheckpointError, Problem, RecipeError
from manyhead.heads import RelatedHead
from manyhead.heads.related import Related
from manyhead.objectives import TargetSpec
from manyhead.objectives.base import Objective
from manyhead.packed import PackedBatch, Passed
from manyhead.recipe.schema import Options, Recipe, Tables, Task
from manyhead.recipe.tables import builder


class MultiTaskModel(nn.Module):
    """Encoder, pooling, projections and heads; `experts` are what tasks have of their own inside the encoder.

    Parameters are named by these parts: ``encoder.``, ``pooling.``, ``projections.``, ``experts.``, ``heads.``.
    ``fixed`` names those that never train, because experts do in their place. ``autocast`` is the type of the encoder's
    matrix products while its weights stay in fp32 (None: their own type). Pooling, heads and outputs are always fp32.
    ``temperatures`` divide a task's outputs, behind its threshold, before they become probabilities; they are not saved
    with the weights.
    """

    def __init__(self, trunk: Trunk, heads: Mapping[str, nn.Module], thresholds: Collection[str] = ()) -> None:
        super().__init__()
        self.encoder = trunk.encoder
        self.pooling = trunk.pooling
        self.projections = trunk.projections
        self.experts = trunk.experts
        self.heads = PerTask(heads)
        self.thresholds = nn.Module()
        for task in thresholds:
            self.thresholds.register_buffer(task_key(task), torch.zeros(()))
        self.autocast: torch.dtype | None = None
        self.temperatures: dict[str, float] = {}
        own = {f"encoder.{name}" for name, _ in self.encoder.named_parameters()}
        self.fixed = frozenset(own if trunk.freezes_encoder else ())
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in self.fixed)

    @property
    def width(self) -> int:
        """Width D of the encoder's states."""
        return self.encoder.width

    def forward(self, batch: PackedBatch) -> dict[str, Tensor]:
        """Outputs (E, O) of each part's task."""
        return self.run(batch).outputs

    def run(self, batch: PackedBatch, noise: Tensor | None = None) -> Passed:
        """Outputs of each part's task, and the vectors they come from.

        ``noise`` (T, D) is added to the states that enter the encoder's first layer.
        """
        pooled = self._vectors(batch, noise)
        vectors = {part.task: pooled[part.sequences] for part in batch.parts}
        return Passed({task: self.head(task)(found) for task, found in vectors.items()}, vectors)

    def embed(self, batch: PackedBatch) -> Tensor:
        """Pooled vectors (B, D) of all sequences, as heads see them, fp32."""
        return self._vectors(batch, None)

    def token_states(self, batch: PackedBatch) -> Tensor:
        """States (T, D) of the encoder's last layer, whichever layer is pooled, fp32."""
        return self._states(batch, None, self.encoder.n_layers).hidden

    def pooled_states(self, batch: PackedBatch) -> TokenStates:
        """States (T, D) of the layer that is pooled, fp32, with received attention where the encoder captures it."""
        return self._states(batch, None, self.encoder.layer)

    def word_embeddings(self) -> Tensor:
        """The encoder's word embeddings (V, D)."""
        return self.encoder.word_embeddings

    def head(self, task: str) -> nn.Module:
        """The head of ``task``."""
        return self.heads.of(task)

    def threshold(self, task: str) -> Tensor | None:
        """What is taken off the outputs of ``task`` before they predict: a scalar, None where its loss fits none."""
        return self.thresholds.get_buffer(task_key(task)) if hasattr(self.thresholds, task_key(task)) else None

    def set_threshold(self, task: str, value: float) -> None:
        """Sets `threshold` of a task that has one."""
        self.thresholds.get_buffer(task_key(task)).fill_(value)

    @property
    def routed(self) -> bool:
        """Whether the vector of a text depends on the task it is read for."""
        return bool(self.experts.tasks) or isinstance(self.encoder, CopiedEncoder)

    def task_of(self, name: str) -> str | None:
        """The task whose alone the parameter ``name`` is; None for those that all tasks share."""
        return task_in(name, self.heads.tasks)

    def _vectors(self, batch: PackedBatch, noise: Tensor | None) -> Tensor:
        states = self._states(batch, noise, self.encoder.layer)
        if not isinstance(self.pooling, PerTask):
            return self.projections(self.pooling(states, batch.lengths))
        assert isinstance(self.projections, PerTask)
        vectors: list[Tensor] = []
        for part, (task, start, stop) in zip(batch.parts, batch.routes, strict=True):
            pooled = self.pooling.of(task)(states.part(start, stop), batch.lengths[part.start : part.stop])
            vectors.append(self.projections.of(task)(pooled))
        return torch.cat(vectors)

    def _states(self, batch: PackedBatch, noise: Tensor | None, layer: int) -> TokenStates:
        if self.routed and (strange := {part.task for part in batch.parts} - set(self.heads.tasks)):
            raise ValueError(f"the model's experts are for {', '.join(self.heads.tasks)}, not {', '.join(strange)}")
        with torch.autocast(batch.input_ids.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            states = self.encoder(
                batch.input_ids, batch.segment_ids, batch.lengths, routes=batch.routes, noise=noise, layer=layer
            )
        return TokenStates(states.hidden.float(), states.received)


def build_model(recipe: Recipe, tables: Tables, config: PretrainedConfig, weights: Path | None) -> MultiTaskModel:
    """The recipe's model with the encoder's weights from the folder ``weights``, or all new where it is None.

    The new weights of each part are drawn from the recipe's seed and the part's own name. Raises `UsageError` where
    encoder and recipe do not fit.
    """
    torch.manual_seed(recipe.seed)
    options = recipe.encoder
    capture = options.pooling.kind == "attention"
    encoder, pooler = build_encoder(
        config, weights, layer=options.layer, capture=capture, max_tokens=options.max_tokens
    )
    return _assemble(recipe, tables, encoder, pooler)


def empty_model(recipe: Recipe, tables: Tables, config: PretrainedConfig) -> MultiTaskModel:
    """The recipe's model without any values, for the names and shapes of its parameters; it cannot run.

    Raises `UsageError` and `RecipeError` where encoder and recipe do not fit.
    """
    check_limits(config, layer=recipe.encoder.layer, max_tokens=recipe.encoder.max_tokens)
    with torch.device("meta"):
        encoder = PackedEncoder(empty_encoder(config), layer=recipe.encoder.layer)
        return _assemble(recipe, tables, encoder, {})


def trainable_names(model: MultiTaskModel, freeze: Sequence[str]) -> frozenset[str]:
    """Names of the parameters that train where those that match a pattern of ``freeze``, and fixed ones, do not."""
    return frozenset(
        name
        for name, _ in model.named_parameters()
        if name not in model.fixed and not any(fnmatchcase(name, pattern) for pattern in freeze)
    )


def _assemble(recipe: Recipe, tables: Tables, encoder: PackedEncoder, pooler: Mapping[str, Tensor]) -> MultiTaskModel:
    options, width = recipe.encoder, encoder.width
    if options.sandwich_norm:
        add_sandwich_norm(encoder)
    seed_part(recipe.seed, "pooling")
    pooling = builder(tables, "pooling", options.pooling)(options.pooling, width, pooler)
    projections = nn.Sequential()
    for number, each in enumerate(options.projections):
        seed_part(recipe.seed, "projections", str(number))
        projections.append(builder(tables, "projections", each)(each, width))
    trunk = Trunk(encoder, pooling, projections)
    if options.experts is not None:
        build = builder(tables, "experts", options.experts)
        trunk = build(options.experts, trunk, list(recipe.tasks), recipe.seed)
    heads: dict[str, nn.Module] = {}
    thresholds: list[str] = []
    problems: list[Problem] = []
    for name, task in recipe.tasks.items():
        objective = build_objective(task, tables)
        if getattr(objective, "fits_threshold", False):
            thresholds.append(name)
        build = builder(tables, "heads", task.head)
        seed_part(recipe.seed, "heads", name)
        try:
            heads[name] = build(task.head, width, objective.outputs, siamese=task.sequences_per_example == 2)
        except ValueError as error:
            problems.append(Problem(str(error), key=f"tasks.{name}.head"))
    if problems:
        raise RecipeError(problems)
    for name, task in recipe.tasks.items():
        if isinstance(task.head, RelatedHead):
            other = recipe.tasks[task.head.to]
            seed_part(recipe.seed, "heads", name)
            related = cast("Related", heads[name])
            related.relate(heads[task.head.to], build_objective(other, tables), len(other.label_names))
    return MultiTaskModel(trunk, heads, thresholds)


def build_objective(
    task: Task, tables: Tables, class_counts: Sequence[int] | None = None, loss: Options | None = None
) -> Objective:
    """The task's objective, or another ``loss`` on its targets.

    ``class_counts`` of its training rows are needed for ``class_weights: balanced``.
    """
    loss = loss or task.loss
    target = TargetSpec(
        labels=tuple(task.label_names),
        range=task.range,
        class_weights=_class_weights(task, class_counts),
        label_smoothing=task.label_smoothing,
    )
    return cast("Objective", builder(tables, "objectives", loss)(loss, target))


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes all parameters and buffers; the same weights always give the same bytes. Raises OSError."""
    save_tensors({name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}, path)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes a safetensors file. Raises OSError, as any writing does, where the disk takes it not."""
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Reads what `save_weights` wrote. Raises `CheckpointError` where names, shapes or bytes are not the model's."""
    try:
        model.load_state_dict(cast("Mapping[str, Any]", load_file(path)))
    except Exception as error:  # safetensors raises its own, torch a RuntimeError listing the keys
        raise CheckpointError(f"{path}: the weights do not fit the model: {error}") from error


def _class_weights(task: Task, counts: Sequence[int] | None) -> tuple[float, ...]:
    if isinstance(task.class_weights, dict):
        return tuple(float(task.class_weights.get(cell, 1.0)) for cell in task.label_cells)
    if task.class_weights is None or counts is None:
        return ()
    total = sum(counts)
    return tuple(total / (len(counts) * count) if count else 1.0 for count in counts)
