"""From the parts of a recipe to what all sides train on."""

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.trainer_pt_utils import get_length_grouped_indices

from manyhead.build.parts import Parts
from manyhead.data.task_data import TaskData
from training_sides.examples import Examples, Settings, Work

MEGABATCH = 50
"""Batches among which the Trainer groups by length."""


def some_work(parts: Parts, data_dir: str | None, batch_size: int, rounds: int, steps: int) -> Work:
    """Batches evenly spread over one of the Trainer's groups of batches, the same in each run; fewer of small data."""
    train = parts.split("train")
    group = min(MEGABATCH, min(data.n_examples for data in train.values()) // batch_size)
    steps = min(steps, group)
    rounds = min(rounds, group // steps)
    labels = {name: len(task.label_names) or 1 for name, task in parts.recipe.tasks.items()}
    settings = Settings(data_dir, parts.hardware.threads, str(parts.encoder), batch_size, rounds, steps, labels)
    spread = {task: spread_batches(data, batch_size, group, rounds * steps) for task, data in train.items()}
    return Work(settings, {task: _examples(data, spread[task]) for task, data in train.items()})


def spread_batches(data: TaskData, batch_size: int, group: int, count: int) -> NDArray[np.int64]:
    """Rows (count * batch_size,) of ``count`` out of ``group`` batches in the Trainer's order, long ones first."""
    rows = np.random.default_rng(0).permutation(data.n_examples)[: group * batch_size]
    lengths, draws = data.tokens.lengths()[rows].tolist(), torch.Generator().manual_seed(0)
    order = get_length_grouped_indices(lengths, batch_size, mega_batch_mult=group, generator=draws)
    batches = rows[np.array(order)].reshape(group, batch_size)
    return batches[((np.arange(count) + 0.5) * group / count).astype(int)].ravel()


def _examples(data: TaskData, rows: NDArray[np.int64]) -> Examples:
    assert data.targets is not None
    tokens = data.tokens.take(rows)
    return Examples(tokens.ids, tokens.offsets, tokens.segment_starts, data.targets[rows], rows)
