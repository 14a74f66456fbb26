"""Training of three tasks against transformers' Trainer and a plain loop: the same encoder and examples, in turn.

Ours: updates as `manyhead train` takes them, of the recipe cs224n-cpu with ``schedule: interleaved``, a batch of each
task in every step; also with ``length_window: 16``, and with ``accumulation: 3``, which holds as many examples at once
as the Trainer does. Theirs: the Trainer has no step of three tasks, so there is one Trainer for each task with the same
batch size, and their times over the same examples are added; and the loop one writes by hand, with one update over a
padded batch of each task, transformers' encoder shared, bf16 autocast and fused AdamW. All train the packaged encoder
with dropout .1, clipping at 1 and AdamW on pairs that share a sequence, tokenised beforehand; nothing is logged, saved
or scored.

    python benchmarks/training.py [--data-dir DIR] [--batch-sizes 8 32] [--rounds 8] [--steps 4] [--json FILE]

``--data-dir`` names the folder of the CS224N files (default: $MANYHEAD_CS224N); without one the packaged sample is
used. Each side has a process of its own, so that none gets the settings of another; one trains, the others sleep. Times
of shared machines mean little: read the ratios, medians over the rounds with their spread. The product rate is measured
beside them in each round: what the encoder's linear layers reach of it on tokens that are no padding.

What differs: our encoder and the plain loop's are shared by the tasks, the Trainers' are three; our heads read the mean
of the tokens through a hidden layer, theirs the first token through BERT's pooler. Each block of steps begins with one
that is not counted. Length grouping orders the Trainer's examples by transformers' own function among 50 batches, which
is what the Trainer does on a large set. The examples are those of batches evenly spread over that order, so each round
holds all lengths. Peak memory is that of a new process of each side, its Trainers one after the other.
"""

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from limits import ceiling
from training_sides import OURS, SIDES, THEIRS
from training_sides.examples import Work
from training_sides.making import some_work
from work import cell, parser_of, print_record, rates, ratios, record_of, spread, three_tasks, write
from workers import Worker

from manyhead.build.parts import Parts, read_parts
from manyhead.training.observer import Observer

WORKER = "training_sides.worker"
MEMORY_BATCH, MEMORY_STEPS = 32, 8


def main() -> None:
    """Measures and prints."""
    parser = parser_of(__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="default: all")
    given = parser.parse_args()
    overrides = {"threads": given.threads} if given.threads else {}
    parts = read_parts(three_tasks(given.data_dir, overrides), Observer())
    results: dict[str, Any] = {
        **record_of(parts.hardware, given.data_dir, ["accelerate"]),
        "ceiling": ceiling(),
        "training": [],
    }
    print_record(results)
    print_ceiling(results["ceiling"])
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = {side: stack.enter_context(Worker(WORKER, side)) for side in given.sides}
        for size in given.batch_sizes:
            work = some_work(parts, given.data_dir, size, given.rounds, given.steps)
            work.save(Path(folder, str(size)))
            results["training"].append(compare(workers, Path(folder, str(size)), work, parts))
            print_training(results["training"][-1])
    with tempfile.TemporaryDirectory() as folder:
        work = some_work(parts, given.data_dir, MEMORY_BATCH, 1, MEMORY_STEPS)
        work.save(Path(folder, "work"))
        sides = {side: memory(side, Path(folder, "work")) for side in given.sides}
    results["memory"] = {"batch_size": work.settings.batch_size, "steps": work.settings.steps, "sides": sides}
    print_memory(results["memory"])
    write(results, given.json)


def compare(workers: Mapping[str, Worker], folder: Path, work: Work, parts: Parts) -> dict[str, Any]:
    """All sides in turn on the same examples, each round another one first."""
    for worker in workers.values():
        worker.tell(work=str(folder), in_turn=False)
    for worker in workers.values():
        worker.hear()
    given = work.settings
    seconds: dict[str, list[float]] = {side: [0.0] * given.rounds for side in workers}
    tokens: dict[str, list[int]] = {side: [0] * given.rounds for side in workers}
    ceilings: list[dict[str, float]] = []
    for number in range(given.rounds):
        ceilings.append(ceiling())
        for side in turned(list(workers), number):
            taken = workers[side].ask(block=number)
            seconds[side][number], tokens[side][number] = taken["seconds"], taken["tokens"]
    examples = given.steps * given.batch_size * len(given.labels)
    limits = {name: statistics.median(each[name] for each in ceilings) for name in ceilings[0]}
    flop = 3 * encoder_flop(parts)
    products = {
        side: product_rate([flop * n / taken / 1e9 for n, taken in zip(tokens[side], seconds[side], strict=True)],
                           limits[f"{SIDES[side].precision or parts.hardware.precision}_gflop_per_second"])
        for side in workers
    }  # fmt: skip
    ours, theirs = ([side for side in workers if side in chosen] for chosen in (OURS, THEIRS))
    return {
        "batch_size": given.batch_size,
        "rounds": given.rounds,
        "steps": given.steps,
        "tokens_per_step": statistics.mean(next(iter(tokens.values()))) / given.steps,
        "examples_per_second": rates(seconds, examples),
        "ratios": ratios(seconds, ours, theirs),
        "products": products,
        "limits": limits,
        "seconds_a_round": {side: spread(taken) for side, taken in seconds.items()},
        "seconds": seconds,
        "tokens": tokens,
        "ceilings": ceilings,
    }


def turned(names: Sequence[str], number: int) -> Iterator[str]:
    """The names, beginning with the ``number``-th."""
    first = number % len(names)
    yield from names[first:]
    yield from names[:first]


def encoder_flop(parts: Parts) -> int:
    """Operations of the encoder's linear layers for one token forward: two for each weight."""
    config = parts.config
    return 4 * config.num_hidden_layers * config.hidden_size * (2 * config.hidden_size + config.intermediate_size)


def product_rate(found: Sequence[float], limit: float) -> dict[str, float]:
    """GFLOP/s of the linear layers in the median round, and its share of the limit."""
    rate = statistics.median(found)
    return {"gflop_per_second": rate, "limit_gflop_per_second": limit, "share": rate / limit}


def memory(side: str, folder: Path) -> dict[str, float]:
    """Peak resident MiB of a new process that runs one side, and of it what its libraries take."""
    with Worker(WORKER, side) as worker:
        imported = worker.ask(work=str(folder), in_turn=True)["imported_mib"]
        return {"imported_mib": imported, "peak_mib": worker.ask(block=0)["peak_mib"]}


def print_ceiling(found: Mapping[str, float]) -> None:
    """The limits in one line."""
    print(f"Products of 1024 x 1024: {found['bf16_gflop_per_second']:.0f} GFLOP/s in bf16, "
          f"{found['fp32_gflop_per_second']:.0f} in fp32; copies of memory: {found['copy_gb_per_second']:.1f} GB/s "
          "read and written", flush=True)  # fmt: skip


def print_training(found: Mapping[str, Any]) -> None:
    """One batch size as Markdown."""
    theirs = [side for side in found["seconds"] if side in THEIRS]
    title = f"{found['batch_size']} examples a task, {found['tokens_per_step']:.0f} tokens a step"
    print(f"\n| {title} | examples/s | share of the product rate |{''.join(f' times {name} |' for name in theirs)}")
    print("|---" * (3 + len(theirs)) + "|")
    for side in sorted(found["seconds"], key=lambda side: side in OURS):
        products = found["products"][side]
        against = [cell(found["ratios"][side][other]) if side in OURS else "" for other in theirs]
        cells = [side, f"{found['examples_per_second'][side]:.0f}", f"{products['share']:.0%}", *against]
        print(f"| {' | '.join(cells)} |")
    print(f"\n{found['rounds']} rounds of {found['steps']} steps; beside them: ", end="")
    print_ceiling(found["limits"])


def print_memory(found: Mapping[str, Any]) -> None:
    """The memory of each side as Markdown, beside each of theirs."""
    sides = found["sides"]
    theirs = [side for side in sides if side in THEIRS]
    title = f"memory, {found['batch_size']} examples a task, {found['steps']} steps"
    print(f"\n| {title} | peak MiB | of it libraries |{''.join(f' times {name} |' for name in theirs)}")
    print("|---" * (3 + len(theirs)) + "|")
    for side in sorted(sides, key=lambda side: side in OURS):
        taken = sides[side]
        against = [f"{taken['peak_mib'] / sides[other]['peak_mib']:.2f}" if side in OURS else "" for other in theirs]
        cells = [side, f"{taken['peak_mib']:.0f}", f"{taken['imported_mib']:.0f}", *against]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
