"""How cost grows: examples a second by rows, text length, tasks, batch and processes, and memory by tasks.

Whole updates of the packaged encoder on synthetic texts (random words, 30 tokens on average unless said otherwise),
drawing the step's rows included: interleaved tasks of two classes, dropout .1, clipping at 1 and AdamW.

    python benchmarks/growth.py [--rounds 5] [--only rows ...] [--threads N] [--json FILE] [--pictures DIR]

The points of a curve take turns, block by block of a few steps, in one process; each block starts where the last one of
its point ended. Times of shared machines mean little: read the medians with their quartiles. Memory is the peak of a
process of its own for each point. ``--pictures`` draws each curve as a PNG, and needs matplotlib. It takes 4 minutes.

- rows: of each of 3 tasks, 8 in a step; texts of 32 tokens.
- length: tokens of each text; 1 task, 32 texts in a step.
- tasks: 8 examples of each in a step, for the plain sum and for PCGrad; memory, by tasks likewise.
- batch: examples of each of 3 tasks in a step.
- processes: one with all threads, one with half of them, and two at once with half of them each, 3 tasks.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from growth_cases import MOST_TASKS, Setting
from limits import ceiling
from work import parser_of, print_record, record_of, spread, write
from workers import Worker

from manyhead.device import choose_hardware

WORKER = "growth_cases.worker"
BLOCK_TOKENS = 2500
"""Tokens in a block of steps, about; at least one step."""
MEMORY_STEPS = 4
MEAN_TOKENS = 30
SUM, PCGRAD = Setting(), Setting(balancing="pcgrad")


@dataclass(frozen=True)
class Curve:
    """What is varied, named for an axis, and the settings of each line by its values."""

    title: str
    lines: Mapping[str, Mapping[int, Setting]]


TASKS = (1, 2, 3, 5, 7, MOST_TASKS)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
ROWS = (1_000, 10_000, 100_000, 1_000_000)
CURVES = {
    "rows": Curve(
        "rows of each task",
        {
            name: {rows: Setting(rows=rows, tokens=32, length_window=window) for rows in ROWS}
            for name, window in (("random batches", 0), ("length_window 16", 16))
        },
    ),
    "length": Curve(
        "tokens of a text",
        {"1 task, 32 texts a step": {n: Setting(tasks=1, batch=32, tokens=n) for n in (8, 16, 32, 64, 128, 256)}},
    ),
    "tasks": Curve(
        "tasks",
        {
            "plain sum": {tasks: replace(SUM, tasks=tasks) for tasks in TASKS},
            "PCGrad": {tasks: replace(PCGRAD, tasks=tasks) for tasks in TASKS if tasks > 1},
        },
    ),
    "batch": Curve(
        "examples of each task in a step",
        {
            name: {batch: replace(way, batch=batch) for batch in BATCHES}
            for name, way in (("plain sum", SUM), ("PCGrad", PCGRAD))
        },
    ),
}
MEMORY, PROCESSES = "memory", "processes"
PROCESS_BATCHES = (8, 32)


def main() -> None:
    """Measures and prints."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=(*CURVES, MEMORY, PROCESSES), default=(*CURVES, MEMORY, PROCESSES))
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    given = parser.parse_args()
    hardware = choose_hardware("cpu", "auto", given.threads)
    results: dict[str, Any] = {
        **record_of(hardware, None, []),
        "texts": "synthetic",
        "rounds": given.rounds,
        "ceiling": ceiling(),
        "curves": {},
    }
    print_record(results)
    curves = results["curves"]
    with Worker(WORKER, str(hardware.threads)) as worker:
        for name, curve in CURVES.items():
            if name in given.only:
                curves[name] = measured(worker, curve, given.rounds)
                print_curve(curves[name])
    if MEMORY in given.only:
        curves[MEMORY] = memory(hardware.threads)
        print_memory(curves[MEMORY])
    if PROCESSES in given.only:
        curves[PROCESSES] = processes(hardware.threads, given.rounds)
        print_processes(curves[PROCESSES])
    write(results, given.json)
    if given.pictures:
        from growth_cases.pictures import draw

        draw(curves, given.pictures)


def block(workers: Sequence[Worker], setting: Setting) -> dict[str, float]:
    """Examples and tokens a second of some steps, taken by all the workers at once."""
    steps = max(1, BLOCK_TOKENS // (setting.tasks * setting.batch * (setting.tokens or MEAN_TOKENS)))
    for worker in workers:
        worker.tell(setting=setting.request(), steps=steps)
    taken = [worker.hear() for worker in workers]
    seconds = max(each["seconds"] for each in taken)
    examples = len(workers) * steps * setting.tasks * setting.batch
    return {
        "examples_per_second": examples / seconds,
        "tokens_per_second": sum(each["tokens"] for each in taken) / seconds,
        "milliseconds_per_step": 1000 * seconds / steps,
    }


def measured(worker: Worker, curve: Curve, rounds: int) -> dict[str, Any]:
    """All points in turn, and a round before that is not counted."""
    points = [(line, value, setting) for line, each in curve.lines.items() for value, setting in each.items()]
    found: dict[tuple[str, int], list[dict[str, float]]] = {(line, value): [] for line, value, _ in points}
    for number in range(rounds + 1):
        for line, value, setting in points if number % 2 else reversed(points):
            taken = block([worker], setting)
            if number:
                found[line, value].append(taken)
    lines = {
        line: [{"value": value, **summary(found[line, value])} for value in each] for line, each in curve.lines.items()
    }
    return {"title": curve.title, "lines": lines}


def summary(taken: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Medians and spreads over the rounds."""
    return {name: spread([each[name] for each in taken]) for name in taken[0]}


def memory(threads: int) -> dict[str, Any]:
    """Peak resident MiB by tasks, each in a process of its own, as many at once as there are threads."""

    def peak(setting: Setting) -> float:
        with Worker(WORKER, "1") as worker:
            return worker.ask(setting=setting.request(), steps=MEMORY_STEPS)["peak_mib"]

    points = [(line, tasks, setting) for line, each in CURVES["tasks"].lines.items() for tasks, setting in each.items()]
    with ThreadPoolExecutor(threads) as pool:
        peaks = list(pool.map(peak, (setting for _, _, setting in points)))
    lines: dict[str, list[dict[str, float]]] = {}
    for (line, tasks, _), mib in zip(points, peaks, strict=True):
        lines.setdefault(line, []).append({"value": tasks, "peak_mib": mib})
    return {"title": "tasks", "lines": lines}


def processes(threads: int, rounds: int) -> dict[str, Any]:
    """One process against two that share the threads."""
    half = max(1, threads // 2)
    with ExitStack() as stack:
        whole, one, other = (stack.enter_context(Worker(WORKER, str(count))) for count in (threads, half, half))
        ways = {
            f"1 process, {_threads(threads)}": [whole],
            f"1 process, {_threads(half)}": [one],
            f"2 processes, {_threads(half)} each": [one, other],
        }
        found: dict[tuple[str, int], list[dict[str, float]]] = {(way, n): [] for way in ways for n in PROCESS_BATCHES}
        for number in range(rounds + 1):
            for (way, batch), taken in found.items():
                rates = block(ways[way], replace(SUM, batch=batch))
                if number:
                    taken.append(rates)
    lines = {way: [{"value": n, **summary(found[way, n])} for n in PROCESS_BATCHES] for way in ways}
    return {"title": "examples of each task in a step", "lines": lines}


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def print_curve(curve: Mapping[str, Any]) -> None:
    """The rates of each line as Markdown."""
    for line, points in curve["lines"].items():
        print(f"\n| {curve['title']}; {line} | examples/s (quartiles) | tokens/s | ms a step |\n|---|---|---|---|")
        for point in points:
            rates = f"{rate_cell(point)} | {point['tokens_per_second']['median']:,.0f}"
            print(f"| {point['value']:,} | {rates} | {point['milliseconds_per_step']['median']:.0f} |", flush=True)


def print_memory(found: Mapping[str, Any]) -> None:
    """Peak memory by tasks as Markdown."""
    lines = found["lines"]
    print(f"\n| {found['title']} | {' | '.join(f'peak MiB, {line}' for line in lines)} |\n|---{'|---' * len(lines)}|")
    peaks = {line: {point["value"]: f"{point['peak_mib']:.0f}" for point in points} for line, points in lines.items()}
    for value in sorted({value for each in peaks.values() for value in each}):
        print(f"| {value} | {' | '.join(each.get(value, '') for each in peaks.values())} |", flush=True)


def print_processes(found: Mapping[str, Any]) -> None:
    """Rates of processes as Markdown."""
    batches = " | ".join(f"examples/s, {batch} of each task (quartiles)" for batch in PROCESS_BATCHES)
    print(f"\n| processes | {batches} |\n|---{'|---' * len(PROCESS_BATCHES)}|")
    for way, points in found["lines"].items():
        print(f"| {way} | {' | '.join(map(rate_cell, points))} |", flush=True)


def rate_cell(point: Mapping[str, Any]) -> str:
    """Examples a second with quartiles."""
    rate = point["examples_per_second"]
    return f"{rate['median']:.0f} ({rate['low_quartile']:.0f} to {rate['high_quartile']:.0f})"


if __name__ == "__main__":
    main()
