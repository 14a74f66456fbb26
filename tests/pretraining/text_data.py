"""Tasks and their rows out of texts in memory, and a tiny model for them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from manyhead.data.table import Rejects
from manyhead.data.task_data import StringColumn, Tally, TaskData
from manyhead.data.tokens import tokenize_texts
from manyhead.encoder.load import read_config
from manyhead.model import MultiTaskModel, build_model
from manyhead.packed import PackedBatch, Passed
from manyhead.pretraining.base import TextFacts
from manyhead.recipe.load import load_recipe
from manyhead.recipe.schema import Recipe, Task
from manyhead.recipe.tables import TABLES
from manyhead.schedules.base import Part
from tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
"""One for all: what is learned twice from the same texts differs."""

WORDS = ["a", "film", "that", "was", "good", "meal", "the", "slow", "plot", "and", "people"]

TASKS: dict[str, dict[str, Any]] = {
    "mood": {"kind": "classification", "text": "a", "labels": [0, 1, 2]},
    "same": {"kind": "classification", "text": ["a", "b"], "labels": [0, 1], "pairing": "siamese"},
    "joined": {"kind": "classification", "text": ["a", "b"], "labels": [0, 1]},
    "near": {"kind": "regression", "text": ["a", "b"], "range": [0, 5]},
}


def recipe_of(encoder: Path, tasks: Mapping[str, Mapping[str, Any]] = TASKS, **changes: Any) -> Recipe:
    """A recipe with tasks that name no real files."""
    common = {"target": "y", "files": {"train": "none.csv"}}
    value = {
        "manyhead": 1,
        "name": "texts",
        "encoder": {"checkpoint": str(encoder), "max_tokens": 60, "pooling": "mean", **changes},
        "tasks": {name: {**common, **task} for name, task in tasks.items()},
    }
    return load_recipe(value).recipe


def model_of(encoder: Path, recipe: Recipe) -> MultiTaskModel:
    config = read_config(encoder, dropout=recipe.encoder.dropout, attention_dropout=recipe.encoder.attention_dropout)
    return build_model(recipe, TABLES, config, encoder)


def facts_of(recipe: Recipe, tokenizer: Tokenizer = TOKENIZER) -> TextFacts:
    return TextFacts.of(tokenizer, recipe.tasks)


def data_of(task: Task, texts: Sequence[tuple[str, ...]], targets: Sequence[float]) -> TaskData:
    """A training split of ``texts``."""
    tokens = tokenize_texts(TOKENIZER, texts, max_tokens=60, siamese=task.sequences_per_example == 2)
    values = np.array(targets, np.int64) if task.kind == "classification" else np.array(targets, np.float32)
    none = StringColumn(np.empty(0, np.uint8), np.zeros(len(texts) + 1, np.int64))
    tally = Tally(len(texts), Rejects(), 0, 0, 0)
    lines = np.arange(len(texts), dtype=np.int64)
    return TaskData("task", "train", tokens, values, lines, none, "", "", None, tally, ())


def all_rows(data: Mapping[str, TaskData]) -> list[Part]:
    return [Part(name, np.arange(each.n_examples)) for name, each in data.items()]


def some_texts(count: int, seed: int = 0) -> list[str]:
    """Different texts of two to nine words."""
    generator = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(generator.choice(WORDS, generator.integers(2, 10)))] = None
    return list(found)


class Recorder:
    """A model that remembers what it was given and what it gave."""

    def __init__(self, model: MultiTaskModel) -> None:
        self.model = model
        self.autocast, self.width = model.autocast, model.width
        self.batches: list[PackedBatch] = []
        self.found: list[Tensor] = []

    def run(self, batch: PackedBatch, noise: Tensor | None = None) -> Passed:
        return self.model.run(batch, noise)

    def embed(self, batch: PackedBatch) -> Tensor:
        return self._kept(batch, self.model.embed(batch))

    def token_states(self, batch: PackedBatch) -> Tensor:
        return self._kept(batch, self.model.token_states(batch))

    def word_embeddings(self) -> Tensor:
        return self.model.word_embeddings()

    def _kept(self, batch: PackedBatch, found: Tensor) -> Tensor:
        self.batches.append(batch)
        self.found.append(found)
        return found
