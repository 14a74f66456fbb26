"""The multi-task model: one shared encoder, a pooling, and a head per task.

`build_model` makes one from a recipe; `MultiTaskModel.forward` runs a packed batch of any tasks through the encoder
once and each task's rows through its head.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PretrainedConfig

from manyhead.encoder.load import build_encoder
from manyhead.encoder.packed_encoder import PackedEncoder, TokenStates
from manyhead.errors import CheckpointError, Problem, RecipeError
from manyhead.objectives import TargetSpec
from manyhead.objectives.base import Objective
from manyhead.packed import PackedBatch
from manyhead.recipe.schema import Recipe, Tables, Task
from manyhead.recipe.tables import builder


class MultiTaskModel(nn.Module):
    """Encoder, pooling and heads.

    ``autocast`` is the type of the encoder's matrix products while its weights stay in fp32 (None: their own type).
    Pooling, heads and outputs are always fp32.
    """

    def __init__(self, encoder: PackedEncoder, pooling: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.heads = nn.ModuleDict({_key(task): head for task, head in heads.items()})
        self.autocast: torch.dtype | None = None

    def forward(self, batch: PackedBatch) -> dict[str, Tensor]:
        """Outputs (E, O) of each part's task."""
        vectors = self.embed(batch)
        return {part.task: self.head(part.task)(vectors[part.sequences]) for part in batch.parts}

    def embed(self, batch: PackedBatch) -> Tensor:
        """Pooled vectors (B, D) of all sequences, fp32."""
        with torch.autocast(batch.input_ids.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            states = self.encoder(batch.input_ids, batch.segment_ids, batch.lengths)
        return self.pooling(TokenStates(states.hidden.float(), states.received), batch.lengths)

    def head(self, task: str) -> nn.Module:
        """The head of ``task``."""
        return self.heads[_key(task)]


def build_model(recipe: Recipe, tables: Tables, config: PretrainedConfig, weights: Path | None) -> MultiTaskModel:
    """The recipe's model with the encoder's weights from the folder ``weights``, or all new where it is None.

    New weights are drawn from torch's generator, seeded with the recipe's seed. Raises `UsageError` where encoder and
    recipe do not fit.
    """
    torch.manual_seed(recipe.seed)
    options = recipe.encoder
    encoder, pooler = build_encoder(
        config,
        weights,
        layer=options.layer,
        capture=options.pooling.kind == "attention",
        max_tokens=options.max_tokens,
    )
    torch.manual_seed(recipe.seed)
    pooling = builder(tables, "pooling", options.pooling)(options.pooling, encoder.width, pooler)
    heads: dict[str, nn.Module] = {}
    problems: list[Problem] = []
    for name, task in recipe.tasks.items():
        objective = build_objective(task, tables)
        build = builder(tables, "heads", task.head)
        try:
            heads[name] = build(task.head, encoder.width, objective.outputs, siamese=task.sequences_per_example == 2)
        except ValueError as error:
            problems.append(Problem(str(error), key=f"tasks.{name}.head"))
    if problems:
        raise RecipeError(problems)
    return MultiTaskModel(encoder, pooling, heads)


def build_objective(task: Task, tables: Tables, class_counts: Sequence[int] | None = None) -> Objective:
    """The task's objective; ``class_counts`` of its training rows are needed for ``class_weights: balanced``."""
    target = TargetSpec(
        labels=tuple(task.label_names),
        range=task.range,
        class_weights=_class_weights(task, class_counts),
        label_smoothing=task.label_smoothing,
    )
    return cast("Objective", builder(tables, "objectives", task.loss)(task.loss, target))


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes all parameters and buffers; the same weights always give the same bytes."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, metadata={"format": "pt"})


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


def _key(task: str) -> str:
    """Module names may not be those of ModuleDict's own methods, which task names may be."""
    return f"task_{task}"
