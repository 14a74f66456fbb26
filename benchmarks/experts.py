"""The step with experts against the step without: the same encoder and mixed batches of three tasks, alternating.

Each side is one update: packed forward, backward, clipping and AdamW, in the precision the hardware is best at. Plain
trains all weights. Low-rank experts are measured with the encoder frozen, as they are meant, and with the encoder
training beside them, which hides no cost of theirs behind gradients that are not computed.

    python benchmarks/experts.py [--rank 16] [--rounds 15] [--device cpu] [--cpu-time] [--json FILE]

``--cpu-time`` runs one thread and counts its own seconds: what to use while others keep the cores busy.
Token ids are random; lengths are those of short texts, 28 tokens on average. Times of shared machines mean little: read
the ratios, medians over the rounds with their spread.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyhead.device import choose_hardware
from manyhead.encoder.load import read_config
from manyhead.encoder.source import locate_encoder
from manyhead.model import MultiTaskModel, build_model
from manyhead.packed import PackedBatch, PackedPart
from manyhead.recipe.load import load_recipe
from manyhead.training.step import clear_gradients

TASKS = ("one", "two", "three")
BATCH_SIZES = (8, 32)
SHORTEST, LONGEST = 8, 48


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    hardware = choose_hardware(given.device, "auto", 1 if given.cpu_time else None)
    clock = time.process_time if given.cpu_time else time.perf_counter
    low_rank = {"kind": "low_rank", "rank": given.rank}
    experts: dict[str, Any] = {
        f"low_rank, rank {given.rank}, encoder frozen": low_rank,
        f"low_rank, rank {given.rank}, encoder trained too": {**low_rank, "freeze": False},
        "pal_top": {"kind": "pal_top"},
        "pal_parallel": {"kind": "pal_parallel"},
        "copies": {"kind": "copies"},
    }
    rows: list[dict[str, Any]] = []
    machine = hardware.describe()
    print(
        f"{machine['device_name']}, {machine['threads']} threads, {machine['precision']}, torch {torch.__version__}\n"
    )
    print("| experts | batch a task | plain, ms | with experts, ms | ratio (min to max) |\n|---|---|---|---|---|")
    plain = Side(None, hardware.device, hardware.autocast, clock)
    for name, options in experts.items():
        routed = Side(options, hardware.device, hardware.autocast, clock)
        for size in BATCH_SIZES:
            row = {"experts": name, "batch_size": size, **alternate(plain, routed, size, given.rounds)}
            spread = f"{row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
            print(f"| {name} | {size} | {row['plain_ms']:.0f} | {row['experts_ms']:.0f} | {spread} |", flush=True)
            rows.append(row)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        results = {"machine": {**machine, "torch": torch.__version__}, "rows": rows}
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


class Side:
    """A model with or without experts, and its update."""

    def __init__(
        self,
        experts: dict[str, Any] | None,
        device: str,
        autocast: torch.dtype | None,
        clock: Callable[[], float],
    ) -> None:
        self.model = three_task_model(experts).to(device).train()
        self.model.autocast = autocast
        self.model.encoder.sparse_embedding_gradients(device == "cpu")
        self.device = torch.device(device)
        self.clock = clock
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)

    def step(self, batch: PackedBatch) -> float:
        """One update; returns its seconds."""
        began = self.clock()
        clear_gradients(self.model)
        outputs = self.model(batch.to(self.device))
        losses = [F.cross_entropy(found, targets_of(found)) for found in outputs.values()]
        torch.stack(losses).sum().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return self.clock() - began


def targets_of(outputs: Tensor) -> Tensor:
    """Alternating classes (E,)."""
    return torch.arange(len(outputs), device=outputs.device) % 2


def three_task_model(experts: dict[str, Any] | None) -> MultiTaskModel:
    """Three two-class tasks on the embedded encoder, mean pooling, linear heads."""
    task = {"kind": "classification", "text": "text", "target": "label", "labels": ["no", "yes"]}
    loaded = load_recipe(
        {
            "manyhead": 1,
            "name": "benchmark",
            "encoder": {"checkpoint": "embedded", "pooling": "mean", "experts": experts},
            "tasks": {name: {**task, "files": {"train": "none.csv"}} for name in TASKS},
        }
    )
    folder = locate_encoder("embedded", None).folder
    config = read_config(folder, dropout=0.1, attention_dropout=None)
    return build_model(loaded.recipe, loaded.tables, config, folder)


def mixed_batch(size: int, rng: np.random.Generator) -> PackedBatch:
    """``size`` short texts a task, each task's sorted by length."""
    lengths: list[int] = []
    parts: list[PackedPart] = []
    for task in TASKS:
        own = np.sort(rng.integers(SHORTEST, LONGEST + 1, size))
        start = len(lengths)
        lengths += own.tolist()
        parts.append(PackedPart(task, start, len(lengths), torch.arange(start, len(lengths))[:, None]))
    ids = torch.from_numpy(rng.integers(1000, 30000, sum(lengths)))
    return PackedBatch(ids, torch.zeros_like(ids), tuple(lengths), tuple(parts))


def alternate(plain: Side, routed: Side, size: int, rounds: int, warm_up: int = 3) -> dict[str, Any]:
    """Runs both on each batch in turn, and which of them is first in turn too."""
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {"plain": [], "experts": []}
    for number in range(rounds + warm_up):
        batch = mixed_batch(size, rng)
        sides = [("plain", plain), ("experts", routed)]
        for name, side in sides if number % 2 else reversed(sides):
            seconds = side.step(batch)
            if number >= warm_up:
                times[name].append(seconds)
    ratios = [b / a for a, b in zip(times["plain"], times["experts"], strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "plain_ms": statistics.median(times["plain"]) * 1e3,
        "experts_ms": statistics.median(times["experts"]) * 1e3,
        "rounds": len(ratios),
    }


if __name__ == "__main__":
    main()
