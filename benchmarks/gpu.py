"""All questions about one GPU in one command under 8 minutes: results first, then times, one table last.

    python benchmarks/gpu.py [--device cuda] [--quick] [--only NAME ...] [--seconds 460] [--json FILE]

An encoder of BERT-base's shape with random weights, and random tokens of short texts' lengths: nothing is downloaded.
Of each question that fails, or for which no time is left, the table says so. ``--quick --device cpu`` runs all that a
CPU can, at a tiny shape, to see that it runs. Nothing else should use the device meanwhile.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from gpu_cases import checks, kernels, padded, scoring, steps
from gpu_cases.answers import FAILED, Answer, Question, as_json, ask, table
from gpu_cases.work import BASE, QUICK, Bench

QUESTIONS: dict[str, Question] = {
    "check packed": checks.packed_is_padded,
    "check efficient": checks.efficient_is_buckets,
    "check rows": checks.rows_are_backwards,
    "check device step": checks.device_step_is_take_step,
    "check captured": checks.captured_is_eager,
    "check not finite": checks.not_finite_changes_nothing,
    "ceilings": kernels.ceilings,
    "small steps": steps.small_steps,
    "large steps": steps.large_steps,
    "scoring": scoring.by_offsets,
    "padded": padded.padded_steps,
    "update": kernels.update,
    "kernels": steps.kernel_counts,
    "usual scoring": scoring.usual,
    "weight gradients": kernels.weight_gradients,
    "check flash": checks.flash_is_buckets,
    "flash steps": steps.flash_steps,
    "attention": kernels.attention,
    "memory": steps.memory,
}
"""In the order they are asked: what matters most first, and what may break the device for others last."""


def main() -> int:
    """Asks and prints; 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="a tiny shape and short times")
    parser.add_argument("--only", nargs="+", choices=list(QUESTIONS), metavar="NAME", help=", ".join(QUESTIONS))
    parser.add_argument("--seconds", type=float, default=460.0, help="no question is begun after as many")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    until = time.perf_counter() + given.seconds
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is here; use --device cpu --quick")
    bench = Bench(torch.device(given.device), QUICK if given.quick else BASE, given.quick)
    record = machine(bench)
    print(json.dumps(record), flush=True)
    answers: dict[str, list[Answer]] = {}
    for name in given.only or QUESTIONS:
        answers[name] = ask(name, QUESTIONS[name], bench, until=until)
        if given.json:  # after each, so that a run that is cut short leaves what it found
            given.json.parent.mkdir(parents=True, exist_ok=True)
            found = {name: as_json(each) for name, each in answers.items()}
            given.json.write_text(json.dumps({"machine": record, "answers": found}, indent=2) + "\n", encoding="utf-8")
        if bench.is_cuda:
            torch.cuda.empty_cache()
    print()
    print(" ".join(f"{key} {value}," for key, value in record.items()).rstrip(","))
    print()
    every = [answer for found in answers.values() for answer in found]
    print(table(every))
    return int(any(answer.value.startswith(FAILED) for answer in every))


def machine(bench: Bench) -> dict[str, Any]:
    """The device and the versions."""
    versions = {each.__name__: each.__version__ for each in (torch, transformers, tokenizers, np)}
    record: dict[str, Any] = {"device": platform.processor() or "cpu", "python": platform.python_version(), **versions}
    if bench.is_cuda:
        record |= {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "driver": driver()}
    return record


def driver() -> str:
    """The driver's version, where the system says it."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")


if __name__ == "__main__":
    sys.exit(main())
