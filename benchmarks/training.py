"""Training of three tasks against Hugging Face's Trainer: the same encoder and examples, in turn in one process.

Ours: updates as `manyhead train` takes them, of the recipe cs224n-cpu with ``schedule: interleaved``, a batch of each
task in every step. Theirs: the Trainer has no step of three tasks, so there is one Trainer for each task with the same
batch size, and their times over the same examples are added. Both sides train the packaged encoder with dropout .1,
clipping at 1 and AdamW on pairs that share a sequence, tokenised beforehand; nothing is logged, saved or scored.

    python benchmarks/training.py [--data-dir DIR] [--batch-sizes 8 32] [--rounds 8] [--steps 4] [--json FILE]

``--data-dir`` names the folder of the CS224N files (default: $MANYHEAD_CS224N); without one the packaged sample is
used. Times of shared machines mean little: read the ratios, medians over the rounds with their spread.

What differs: our encoder is shared by the tasks, theirs are three; our heads read the mean of the tokens through a
hidden layer, theirs the first token through BERT's pooler. Each block of steps begins with one that is not counted.
Length grouping orders the Trainer's examples by transformers' own function among 50 batches, which is what the Trainer
does on a large set. The examples are those of batches evenly spread over that order, so each round holds all lengths.
Peak memory is that of a process that runs one side only, its Trainers one after the other.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from trainer import their_side, trainer_of, trainer_rows
from work import (
    Block,
    Work,
    parser_of,
    print_record,
    print_table,
    quiet_transformers,
    rates,
    ratios,
    record_of,
    some_work,
    three_tasks,
    write,
)

from encoder import ceiling, resident
from manyhead.build.parts import Parts, read_parts
from manyhead.build.plan import new_model, plan_stages
from manyhead.training.observer import Observer
from manyhead.training.step import take_step

OURS = {"ours": 0, "ours, length_window 16": 16}
"""Our sides by their ``length_window``."""

GROUPED: dict[str, Any] = {"bf16": True, "train_sampling_strategy": "group_by_length"}
THEIRS: dict[str, dict[str, Any]] = {"Trainer, defaults": {}, "Trainer, bf16, grouped by length": GROUPED}
"""The Trainer's arguments that are not defaults."""

MEMORY_BATCH = 32


def main() -> None:
    """Measures and prints."""
    parser = parser_of(__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--alone", choices=(*OURS, *THEIRS), help="print the memory that this side takes, and no times")
    given = parser.parse_args()
    quiet_transformers()
    if given.alone:
        print(json.dumps(memory(read(given), given)))
        return
    parts = read(given)
    results: dict[str, Any] = {**record_of(parts.hardware, given.data_dir, ["accelerate"]), "training": []}
    print_record(results)
    for size in given.batch_sizes:
        results["training"].append(compare(some_work(parts, given.data_dir, size, given.rounds, given.steps)))
        print_training(results["training"][-1])
    sides = {side: in_a_process(side, given) for side in (*OURS, *THEIRS)}
    results["memory"] = {"batch_size": MEMORY_BATCH, "steps": given.rounds, "sides": sides}
    print_memory(results["memory"])
    write(results, given.json)


def read(given: argparse.Namespace) -> Parts:
    """The recipe's parts."""
    overrides = {"threads": given.threads} if given.threads else {}
    return read_parts(three_tasks(given.data_dir, overrides), Observer())


def our_side(work: Work, length_window: int, tokens: list[int] | None = None) -> Block:
    """Updates by the recipe's only stage; ``tokens`` of each round are added."""
    stage = {
        "schedule": "interleaved",
        "batch_size": work.batch_size,
        "epoch_examples": {},
        "length_window": length_window,
    }
    recipe = three_tasks(work.data_dir, {f"stages.0.{key}": value for key, value in stage.items()}).recipe
    parts = replace(work.parts, recipe=recipe)
    plan = plan_stages(parts, new_model(parts))[0]

    def block(number: int) -> float:
        first = number * work.steps
        take_step(plan.learner, plan.schedule.step(first))
        began = time.perf_counter()
        taken = [take_step(plan.learner, plan.schedule.step(first + each)).tokens for each in range(work.steps)]
        if tokens is not None:
            tokens.append(sum(taken))
        return time.perf_counter() - began

    return block


def compare(work: Work) -> dict[str, Any]:
    """All sides in turn on the same examples, each round another one first."""
    tokens: list[int] = []
    sides = {name: our_side(work, window, None if window else tokens) for name, window in OURS.items()}
    sides |= {name: their_side(work, flags) for name, flags in THEIRS.items()}
    seconds: dict[str, list[float]] = {name: [0.0] * work.rounds for name in sides}
    limits: list[float] = []
    for number in range(work.rounds):
        limits.append(ceiling()["bf16_gflop_per_second"])
        for name in turned(list(sides), number):
            seconds[name][number] = sides[name](number)
    examples = work.steps * work.batch_size * len(work.tasks)
    flop = 3 * encoder_flop(work.parts)
    found = [flop * n / taken / 1e9 for n, taken in zip(tokens, seconds["ours"], strict=True)]
    return {
        "batch_size": work.batch_size,
        "rounds": work.rounds,
        "steps": work.steps,
        "tokens_per_step": statistics.mean(tokens) / work.steps,
        "examples_per_second": rates(seconds, examples),
        "ratios": ratios(seconds, list(OURS), list(THEIRS)),
        "bf16_products": {
            "limit_gflop_per_second": statistics.median(limits),
            "ours_gflop_per_second": statistics.median(found),
            "share": statistics.median(found) / statistics.median(limits),
        },
        "seconds": seconds,
    }


def turned(names: list[str], number: int) -> Iterator[str]:
    """The names, beginning with the ``number``-th."""
    first = number % len(names)
    yield from names[first:]
    yield from names[:first]


def encoder_flop(parts: Parts) -> int:
    """Operations of the encoder's linear layers for one token forward: two for each weight."""
    linear = [module for module in new_model(parts).encoder.modules() if isinstance(module, nn.Linear)]
    return 2 * sum(module.weight.numel() for module in linear)


def memory(parts: Parts, given: argparse.Namespace) -> dict[str, float]:
    """Peak resident MiB of one side in this process, and resident MiB before it began."""
    work = some_work(parts, given.data_dir, MEMORY_BATCH, 1, given.rounds)
    before = resident()
    if given.alone in OURS:
        our_side(work, OURS[given.alone])(0)
    else:
        for task in work.tasks:
            flags = THEIRS[given.alone]
            trainer = trainer_of(work, task, flags)[0]
            trainer.order = trainer_rows(work, 0, grouped="train_sampling_strategy" in flags)
            trainer.train()
            del trainer
    return {"before_mib": before, "peak_mib": peak()}


def peak() -> float:
    """Largest resident memory of this process so far in MiB; unlike getrusage's it leaves out the process before."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def in_a_process(side: str, given: argparse.Namespace) -> dict[str, float]:
    """`memory` of a side in a process of its own."""
    command = [sys.executable, __file__, "--alone", side, "--rounds", str(given.rounds)]
    command += ["--data-dir", given.data_dir] if given.data_dir else []
    command += ["--threads", str(given.threads)] if given.threads else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_training(found: Mapping[str, Any]) -> None:
    """The rates of one batch size as Markdown."""
    title = f"{found['batch_size']} examples a task, {found['tokens_per_step']:.0f} tokens a step"
    print_table(title, found, list(OURS), list(THEIRS))
    products = found["bf16_products"]
    print(f"\nOur linear layers at {products['ours_gflop_per_second']:.0f} GFLOP/s, {products['share']:.0%} of the "
          f"{products['limit_gflop_per_second']:.0f} that bf16 products reach; {found['rounds']} rounds of "
          f"{found['steps']} steps", flush=True)  # fmt: skip


def print_memory(found: Mapping[str, Any]) -> None:
    """The memory of each side as Markdown."""
    print(f"\n| memory, {found['batch_size']} examples a task | peak MiB | before, MiB |\n|---|---|---|")
    for name, taken in found["sides"].items():
        print(f"| {name} | {taken['peak_mib']:.0f} | {taken['before_mib']:.0f} |")


if __name__ == "__main__":
    main()
