"""Tiny models of three tasks, and packed batches that mix their sequences: what tests of experts run on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manyhead.encoder.load import read_config
from manyhead.model import MultiTaskModel, build_model
from manyhead.packed import PackedBatch, PackedPart, Passed
from manyhead.recipe.load import LoadedRecipe, load_recipe
from tiny import tiny_recipe

LENGTHS = {"reviews": [3, 9, 9, 17], "questions": [2, 20], "sentences": [1, 5, 12, 30]}
"""Lengths of the sequences of each task; ``sentences`` are siamese pairs."""


def tiny_loaded(encoder: Path, tasks: Sequence[str] = tuple(LENGTHS), **options: Any) -> LoadedRecipe:
    """The tiny recipe with some of its tasks; ``options`` are keys of the encoder. No head drops anything."""
    recipe = tiny_recipe(encoder)
    recipe["encoder"] |= {"dropout": 0.0, **options}
    recipe["tasks"] = {name: recipe["tasks"][name] for name in tasks}
    for task in recipe["tasks"].values():
        head = task.get("head", "linear")
        task["head"] = {"dropout": 0.0, **(head if isinstance(head, dict) else {"kind": head})}
    return load_recipe(recipe)


def tiny_model(
    encoder: Path, tasks: Sequence[str] = tuple(LENGTHS), *, dropout: float = 0.0, **options: Any
) -> MultiTaskModel:
    """The model of `tiny_loaded` with the encoder's weights."""
    loaded = tiny_loaded(encoder, tasks, **options)
    config = read_config(encoder, dropout=dropout, attention_dropout=None)
    return build_model(loaded.recipe, loaded.tables, config, encoder)


def mixed_batch(tasks: Sequence[str] = tuple(LENGTHS)) -> PackedBatch:
    """Sequences of ``tasks``; a task's own are the same in every company."""
    ids: list[Tensor] = []
    lengths: list[int] = []
    parts: list[PackedPart] = []
    for task in tasks:
        generator = torch.Generator().manual_seed(list(LENGTHS).index(task))
        start, own = len(lengths), LENGTHS[task]
        ids.append(torch.randint(5, 300, (sum(own),), generator=generator))
        lengths += own
        n = 2 if task == "sentences" else 1
        parts.append(PackedPart(task, start, len(lengths), torch.arange(start, len(lengths)).reshape(-1, n)))
    tokens = torch.cat(ids)
    return PackedBatch(tokens, tokens % 2, tuple(lengths), tuple(parts))


def loss_of(passed: Passed) -> Tensor:
    """A scalar that every output counts in, differently."""
    weighted = [
        (outputs * torch.linspace(-1, 2, outputs.numel()).view_as(outputs)).square().sum()
        for outputs in passed.outputs.values()
    ]
    return torch.stack(weighted).sum()


def gradients(model: MultiTaskModel) -> dict[str, Tensor]:
    """Gradients by name, of the parameters that have one."""
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def perturb(module: torch.nn.Module, seed: int = 0, spread: float = 0.3) -> None:
    """Adds noise to all parameters, so that none is 0 and no two are alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)
