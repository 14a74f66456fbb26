"""What the comparisons with other libraries share: the three tasks, times of sides that take turns, the record."""

import argparse
import importlib.metadata
import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.trainer_pt_utils import get_length_grouped_indices

from manyhead.build.parts import Parts
from manyhead.data.task_data import TaskData
from manyhead.device import Hardware
from manyhead.recipe.load import LoadedRecipe, load_recipe
from manyhead.recipe.schema import Task

Block = Callable[[int], float]
"""Trains on the examples of some round; returns seconds."""

Seconds = Mapping[str, Sequence[float]]
"""What each side took in each round."""


MEGABATCH = 50
"""Batches among which the Trainer groups by length."""


@dataclass(frozen=True)
class Work:
    """What all sides train on: ``rounds`` times ``steps`` batches of each task.

    ``parts`` hold these training rows alone, one batch of like lengths after the other, from long to short.
    """

    parts: Parts
    data_dir: str | None
    batch_size: int
    rounds: int
    steps: int

    @property
    def batches(self) -> int:
        """Batches of each task."""
        return self.rounds * self.steps

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks by name."""
        return self.parts.recipe.tasks


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The options that each comparison has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default=os.environ.get("MANYHEAD_CS224N"))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    return parser


def three_tasks(data_dir: str | None, overrides: Mapping[str, Any]) -> LoadedRecipe:
    """The recipe of the CS224N tasks on the packaged encoder, or of the packaged sample; pairs are cross-encoded."""
    name = "cs224n-cpu" if data_dir else "quickstart"
    changed = dict(overrides)
    if not data_dir:
        changed |= {f"tasks.sentences.{key}": value for key, value in CROSS_ENCODED.items()}
    return load_recipe(name, data_dir=data_dir, overrides=changed)


CROSS_ENCODED = {"pairing": "concat", "head": {"kind": "linear", "dropout": 0.1}, "loss": "mse"}


def some_work(parts: Parts, data_dir: str | None, batch_size: int, rounds: int, steps: int) -> Work:
    """Batches evenly spread over one of the Trainer's groups of batches, the same in each run; fewer of small data."""
    train = parts.split("train")
    group = min(MEGABATCH, min(data.n_examples for data in train.values()) // batch_size)
    steps = min(steps, group)
    rounds = min(rounds, group // steps)
    data = {
        (task, "train"): subset(each, spread_batches(each, batch_size, group, rounds * steps))
        for task, each in train.items()
    }
    return Work(replace(parts, data=data), data_dir, batch_size, rounds, steps)


def spread_batches(data: TaskData, batch_size: int, group: int, count: int) -> np.ndarray:
    """Rows (count * batch_size,) of ``count`` out of ``group`` batches in the Trainer's order, long ones first."""
    rows = np.random.default_rng(0).permutation(data.n_examples)[: group * batch_size]
    lengths, draws = data.tokens.lengths()[rows].tolist(), torch.Generator().manual_seed(0)
    order = get_length_grouped_indices(lengths, batch_size, mega_batch_mult=group, generator=draws)
    batches = rows[np.array(order)].reshape(group, batch_size)
    return batches[((np.arange(count) + 0.5) * group / count).astype(int)].ravel()


def subset(data: TaskData, rows: np.ndarray) -> TaskData:
    """Some rows of a split."""
    assert data.targets is not None
    ids: Any = [data.ids[int(row)] for row in rows]
    return replace(data, tokens=data.tokens.take(rows), targets=data.targets[rows], lines=data.lines[rows], ids=ids)


def record_of(hardware: Hardware, data_dir: str | None, packages: Sequence[str]) -> dict[str, Any]:
    """The machine, the versions and where the texts come from."""
    versions = {name: importlib.metadata.version(name) for name in ("manyhead", "torch", "transformers", *packages)}
    texts = "CS224N: SST, Quora, STS" if data_dir else "packaged sample"
    return {"machine": hardware.describe(), "versions": versions, "texts": texts}


def print_record(record: Mapping[str, Any]) -> None:
    """One line of machine, versions and texts."""
    machine = record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    print(f"{machine['device_name']}, {machine['threads']} threads, {machine['precision']}; {versions}; "
          f"{record['texts']}")  # fmt: skip


def write(results: Mapping[str, Any], path: Path | None) -> None:
    """Keeps the figures, where a file is named."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def quiet_transformers() -> None:
    """No bars and no warnings of new heads."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def rates(seconds: Seconds, examples: int) -> dict[str, float]:
    """Examples a second of each side in its median round of ``examples``."""
    return {name: examples / statistics.median(taken) for name, taken in seconds.items()}


def ratios(seconds: Seconds, ours: Sequence[str], theirs: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """How many times faster each of ours is than each of theirs, round by round."""
    return {own: {other: _ratio(seconds[own], seconds[other]) for other in theirs} for own in ours}


def _ratio(own: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    found = [b / a for a, b in zip(own, other, strict=True)]
    return {"ratio": statistics.median(found), "least": min(found), "most": max(found)}


def cell(ratio: Mapping[str, float]) -> str:
    """A ratio and its range."""
    return f"{ratio['ratio']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"


def print_table(title: str, found: Mapping[str, Any], ours: Sequence[str], theirs: Sequence[str]) -> None:
    """Rates of all sides, and the ratios of ours to theirs, as one Markdown table."""
    print(f"\n| {title} | examples/s | {' | '.join(f'times {name}' for name in theirs)} |")
    print("|---" * (2 + len(theirs)) + "|")
    for name in theirs:
        print(f"| {name} | {found['examples_per_second'][name]:.0f} |{' |' * len(theirs)}")
    for name in ours:
        cells = " | ".join(cell(found["ratios"][name][other]) for other in theirs)
        print(f"| {name} | {found['examples_per_second'][name]:.0f} | {cells} |")
