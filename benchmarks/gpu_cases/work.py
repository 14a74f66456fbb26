"""What the GPU's questions share: random weights, random texts of short lengths, learners, a clock."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import BertConfig

from manyhead.build.parts import Parts
from manyhead.build.plan import new_model, plan_stages
from manyhead.data.table import Rejects
from manyhead.data.task_data import StringColumn, Tally, TaskData
from manyhead.data.tokens import TokenStore
from manyhead.device import choose_hardware
from manyhead.model import MultiTaskModel
from manyhead.recipe.load import load_recipe
from manyhead.schedules.base import Part, Step
from manyhead.training.step import Learner

TASKS = ("sst", "quora", "sts")
MEAN_TOKENS = {"sst": 25, "quora": 32, "sts": 32}
LONGEST = 64
INTERLEAVED_EXAMPLES = 283_010
"""Examples of each task in an interleaved epoch of the CS224N files."""

HOST_RUNS = 20
GOAL_FLOPS = 790e12
"""What an H200 reaches in bf16 products of 8192 x 8192."""


@dataclass(frozen=True)
class Sizes:
    """The encoder's shape, and how much of each question there is."""

    config: dict[str, Any]
    rows: int
    big_batch: int
    pairs: int
    attention_tokens: tuple[int, ...]
    small_batches: tuple[int, ...]


BASE = Sizes(
    config={
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
    },
    rows=20_000,
    big_batch=16_384,
    pairs=404_000,
    attention_tokens=(256, 1024, 8192, 32_768),
    small_batches=(8, 32, 256),
)
QUICK = Sizes(
    config={
        "vocab_size": 500,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
    },
    rows=300,
    big_batch=1024,
    pairs=400,
    attention_tokens=(256,),
    small_batches=(8,),
)


@dataclass(frozen=True)
class Bench:
    """Where and how large questions run."""

    device: torch.device
    sizes: Sizes
    quick: bool

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def kernel(self) -> str:
        """The kernel of attention by offsets that runs there."""
        return "efficient" if self.is_cuda else "reference"

    @property
    def seconds(self) -> float:
        """How long one figure is measured, about."""
        return 0.2 if self.quick else 1.5

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.is_cuda:
            torch.cuda.synchronize()

    def milliseconds(self, run: Callable[[], object], *, warm_up: int = 3) -> float:
        """The mean of as many runs, started one behind the other, as fit the time; from start to the last one's end."""
        for _ in range(warm_up):
            run()
        self.wait()
        began = time.perf_counter()
        run()
        self.wait()
        count = max(3, min(1000, int(self.seconds / max(time.perf_counter() - began, 1e-6))))
        began = time.perf_counter()
        for _ in range(count):
            run()
        self.wait()
        return 1e3 * (time.perf_counter() - began) / count

    def milliseconds_of_host(self, run: Callable[[], object]) -> float:
        """What a run takes until the next one can be started, where none is waited for."""
        self.wait()
        began = time.perf_counter()
        for _ in range(HOST_RUNS):
            run()
        taken = time.perf_counter() - began
        self.wait()
        return 1e3 * taken / HOST_RUNS

    def flops_of_products(self, tokens: int) -> float:
        """Operations of a training step's matrix products in the encoder, without attention's."""
        width, inner = self.sizes.config["hidden_size"], self.sizes.config["intermediate_size"]
        return 6.0 * tokens * self.sizes.config["num_hidden_layers"] * (4 * width * width + 2 * width * inner)


def lengths_of(count: int, mean: int, seed: int) -> np.ndarray:
    """Lengths (count,) of short texts."""
    drawn = np.random.default_rng(seed).normal(mean, 8, count).round().astype(np.int64)
    return drawn.clip(5, LONGEST)


def random_store(count: int, mean: int, vocabulary: int, seed: int, *, pairs: bool) -> TokenStore:
    """Random tokens; of ``pairs`` the second text begins in the middle."""
    lengths = lengths_of(count, mean, seed)
    offsets = np.concatenate([[0], lengths.cumsum()])
    ids = np.random.default_rng(seed + 1).integers(5, vocabulary, offsets[-1]).astype(np.uint16)
    starts = (lengths // 2 if pairs else lengths).astype(np.int32)
    return TokenStore(ids, offsets, starts, np.zeros(count, bool), 1)


def recipe_of(balancing: Any, *, precision: str, dropout: float, device: str) -> dict[str, Any]:
    """Three tasks as those of CS224N: a text of five classes, a pair of two, a scored pair."""
    pair = {"text": ["one", "other"], "target": "target"}
    return {
        "manyhead": 1,
        "name": "gpu",
        "device": device,
        "precision": precision,
        "encoder": {"dropout": dropout, "max_tokens": LONGEST, "pooling": "cls"},
        "tasks": {
            "sst": {"kind": "classification", "text": "text", "target": "target", "labels": list(range(5))},
            "quora": {"kind": "classification", **pair, "labels": [0, 1]},
            "sts": {"kind": "regression", **pair, "range": [0, 5]},
        },
        "stages": [
            {
                "schedule": "interleaved",
                "batch_size": 8,
                "balancing": balancing,
                "optimizer": {"kind": "adamw", "lr": 2e-5, "weight_decay": 0.01},
            }
        ],
    }


def parts_of(
    bench: Bench, balancing: Any = "sum", *, precision: str = "bf16", dropout: float = 0.1, pooling: str = "cls"
) -> Parts:
    """The recipe with random data, and no weights."""
    values = recipe_of(balancing, precision=precision, dropout=dropout, device=bench.device.type)
    values["encoder"]["pooling"] = pooling
    for task in values["tasks"].values():
        task["files"] = {"train": "none.csv"}
        if task["kind"] == "classification":
            task["head"] = {"kind": "linear", "dropout": dropout}
    values["tasks"]["sts"]["head"] = {"kind": "linear", "dropout": dropout}
    loaded = load_recipe(values)
    config = BertConfig(**bench.sizes.config, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    data = {(task, "train"): random_data(bench.sizes, task, seed) for seed, task in enumerate(TASKS)}
    hardware = choose_hardware(bench.device.type, precision, None)
    return Parts(loaded.recipe, loaded.tables, None, Path(), config, cast("Any", None), data, hardware)


def random_data(sizes: Sizes, task: str, seed: int) -> TaskData:
    """Rows of random tokens with random targets."""
    rows = sizes.rows
    store = random_store(rows, MEAN_TOKENS[task], sizes.config["vocab_size"], 10 * seed, pairs=task != "sst")
    draws = np.random.default_rng(100 + seed)
    targets: Any = draws.integers(0, 5 if task == "sst" else 2, rows)
    if task == "sts":
        targets = draws.uniform(0, 5, rows).astype(np.float32)
    ids = StringColumn(np.full(rows, ord("x"), np.uint8), np.arange(rows + 1))
    tally = Tally(rows, Rejects(), 0, 0, 0)
    return TaskData(task, "train", store, targets, np.arange(rows), ids, "random", "", None, tally, ())


_MODELS: dict[tuple[object, ...], MultiTaskModel] = {}


def learner_of(bench: Bench, balancing: Any = "sum", **changes: Any) -> Learner:
    """A learner of random weights, the same each time."""
    parts = parts_of(bench, balancing, **changes)
    key = (bench.quick, bench.device, *sorted(changes.items()))
    if key not in _MODELS:  # to draw a model's weights takes seconds, to copy them nothing
        _MODELS[key] = new_model(parts)
    return plan_stages(parts, copy.deepcopy(_MODELS[key]))[0].learner


def steps_of(bench: Bench, size: int, count: int) -> Sequence[Step]:
    """Steps of ``size`` examples of each task; the rows repeat where there are few."""
    rows = np.arange(count * size) % bench.sizes.rows
    cut = rows.reshape(count, size)
    return [Step(index, 0, tuple(Part(task, cut[index]) for task in TASKS)) for index in range(count)]
