"""The step with a regulariser against the plain step: the same encoder, texts and batches, alternating in one process.

Each side is the product's own update of the packaged encoder on a batch of each of three tasks, in the precision the
hardware is best at: forward, what the regulariser runs, backward, clipping, AdamW.

    python benchmarks/regularisers.py [--data-dir DIR] [--batch-size 8] [--rounds 12] [--only NAME] [--json FILE]

``--data-dir`` names the folder of the CS224N files (default: $MANYHEAD_CS224N); without one the packaged sample is
used. Times are the process's CPU seconds in one thread, which other work on the machine disturbs least; read the
ratios, medians over the rounds with their spread.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from manyhead.build.parts import Parts, read_parts
from manyhead.build.plan import new_model, plan_stages
from manyhead.recipe.load import LoadedRecipe, load_recipe
from manyhead.training.observer import Observer
from manyhead.training.step import take_step

Side = Callable[[int], object]
"""Takes the step of some number."""

ROWS = 2000
"""Training rows of a task that are read."""


def members(first: str) -> dict[str, list[Any]]:
    """What is compared with the plain step, ``first`` being the task of single texts."""
    smart: dict[str, Any] = {"kind": "smart"}
    return {
        "smart": [smart],
        f"smart, {first} only": [{**smart, "tasks": [first]}],
        "smart with bregman": [{**smart, "bregman": 1.0}],
        f"smart with bregman, {first} only": [{**smart, "bregman": 1.0, "tasks": [first]}],
        "smart, detached": [{**smart, "detach": True}],
        "smart, own masks": [{**smart, "masks": "own"}],
        "r_drop": [{"kind": "r_drop"}],
        "l1": [{"kind": "l1", "weight": 1e-6}],
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default=os.environ.get("MANYHEAD_CS224N"))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--only", help="the one to compare; default: all")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    first = "sst" if given.data_dir else "reviews"
    parts = read_parts(recipe_with([], given.data_dir, given.batch_size), Observer())
    machine = {**parts.hardware.describe(), "torch": torch.__version__}
    texts = "CS224N train" if given.data_dir else "packaged sample, train"
    print(
        f"{machine['device_name']}, {machine['threads']} thread, {machine['precision']}, torch {machine['torch']}; "
        f"{texts}, {given.batch_size} examples of each of three tasks"
    )
    plain = side(parts, given.data_dir, given.batch_size, [])
    rows: list[dict[str, Any]] = []
    for name, regularisers in members(first).items():
        if given.only in (None, name):
            other = side(parts, given.data_dir, given.batch_size, regularisers)
            rows.append({"regulariser": name, **alternate(plain, other, given.rounds)})
            print_row(rows[-1])
    if given.json:
        results = {"machine": machine, "texts": texts, "batch_size": given.batch_size, "steps": rows}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def recipe_with(regularisers: list[Any], data_dir: str | None, batch_size: int) -> LoadedRecipe:
    """The three tasks on the packaged encoder, a batch of each in every update."""
    name = "cs224n-cpu" if data_dir else "quickstart"
    tasks = load_recipe(name, data_dir=data_dir).recipe.tasks
    stage = {
        "schedule": "interleaved",
        "batch_size": batch_size,
        "epoch_examples": {},
        "length_window": 0,
        "regularisers": regularisers,
    }
    overrides: dict[str, Any] = {f"stages.0.{key}": value for key, value in stage.items()}
    overrides["threads"] = 1
    overrides |= {f"tasks.{task}.limit": {"train": ROWS} for task in tasks}
    return load_recipe(name, data_dir=data_dir, overrides=overrides)


def side(parts: Parts, data_dir: str | None, batch_size: int, regularisers: list[Any]) -> Side:
    """A model of its own that trains by the only stage's plan."""
    own = replace(parts, recipe=recipe_with(regularisers, data_dir, batch_size).recipe)
    model = new_model(own)
    plan = plan_stages(own, model)[0]
    for regulariser in plan.learner.lesson.regularisers:
        regulariser.started(model)
    return lambda index: take_step(plan.learner, plan.schedule.step(index))


def alternate(plain: Side, other: Side, rounds: int) -> dict[str, float]:
    """Both sides take the same step in each round; the first two rounds are not counted. Medians, and the range."""
    seconds: list[tuple[float, float]] = []
    for index in range(rounds + 2):
        began = time.process_time()
        plain(index)
        between = time.process_time()
        other(index)
        seconds.append((between - began, time.process_time() - between))
    ratios = [took / alone for alone, took in seconds[2:]]
    return {
        "plain_seconds": statistics.median(alone for alone, _ in seconds[2:]),
        "seconds": statistics.median(took for _, took in seconds[2:]),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


def print_row(row: dict[str, Any]) -> None:
    """One line."""
    times = f"{row['plain_seconds'] * 1000:7.0f} ms to {row['seconds'] * 1000:7.0f} ms"
    print(
        f"{row['regulariser']:32} {times}  x {row['ratio']:.2f} ({row['lowest']:.2f} to {row['highest']:.2f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
