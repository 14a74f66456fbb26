"""How long people wait before anything happens: help, recipe checks, the first training step.

    python benchmarks/startup.py [--rounds 9] [--json FILE]

In turn, each in processes of their own:

- `manyhead --help`, beside `python -c 'import typer, rich'`, which is the least that it could take;
- `manyhead check` of a recipe with a mistake, which is told without importing torch;
- `manyhead train` of the quickstart recipe with the packaged encoder: from the end of the imports to the end of the
  first step, data and tokens coming from the cache, and the imports themselves.

Files were read a moment ago, so they come from memory. Times of shared machines mean little: read the ratio.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

CHILD = "--child"
COMMAND = [sys.executable, "-m", "manyhead"]
LEAST = "python -c 'import typer, rich'"
HELP = "manyhead --help"
CHECK = "manyhead check, a recipe with a mistake"
IMPORTS = "manyhead train, imports"
FIRST_STEP = "manyhead train, from their end to the end of the first step"
IMPORTED = ("manyhead.cli.main", "manyhead.build", "manyhead.cli.progress", "manyhead.report")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="manyhead-startup-") as temporary:
        folder = Path(temporary)
        os.environ |= {"MANYHEAD_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
        seconds = measure(folder, given.rounds)
    versions = {name: metadata.version(name) for name in ("manyhead", "torch", "transformers", "typer")}
    machine = {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
    ratios = [ours / least for ours, least in zip(seconds[HELP], seconds[LEAST], strict=True)]
    results = {"machine": {**machine, **versions}, "rounds": given.rounds, "seconds": seconds, "help_ratios": ratios}
    print_table(results)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each, by round; what comes first of all fills caches and is not counted."""
    wrong = folder / "wrong.yaml"
    wrong.write_text("manyhead: 1\nname: wrong\ntasks: {}\n", encoding="utf-8")
    seconds: dict[str, list[float]] = {name: [] for name in (LEAST, HELP, CHECK, IMPORTS, FIRST_STEP)}
    for number in range(rounds + 1):
        found = {
            LEAST: wall([sys.executable, "-c", "import typer, rich"], 0),
            HELP: wall([*COMMAND, "--help"], 0),
            CHECK: wall([*COMMAND, "check", str(wrong)], 2),
            **first_step(folder / f"run-{number}"),
        }
        for name, taken in found.items():
            seconds[name] += [taken] if number else []
    return seconds


def wall(words: Sequence[str], code: int) -> float:
    """Seconds that a command takes, which ends with ``code``."""
    began = time.perf_counter()
    done = subprocess.run(words, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    taken = time.perf_counter() - began
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(words)}: ended with {done.returncode}\n{done.stderr}")
    return taken


def first_step(run: Path) -> dict[str, float]:
    """Seconds of a new run's imports, and from their end to the end of its first step."""
    words = [sys.executable, __file__, CHILD, str(run), repr(time.time())]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    last = done.stdout.strip().rpartition("\n")[2]
    if not last.startswith("{"):
        raise RuntimeError(f"training ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return json.loads(last)


def child(run: str, spawned: float) -> None:
    """Trains until the first step is done; ends at once then."""
    for name in IMPORTED:
        import_module(name)
    from manyhead import faults
    from manyhead.cli.main import app

    imported = time.time()

    def hook(place: str, value: Any) -> Any:
        if place == "step: logged":
            found = {IMPORTS: imported - spawned, FIRST_STEP: time.time() - imported}
            print(f"\n{json.dumps(found)}", flush=True)
            os._exit(0)
        return value

    with faults.injected(hook):
        app(["train", "quickstart", "--out", run, "--quiet"])


def print_table(results: Mapping[str, Any]) -> None:
    """The results as Markdown."""
    print("; ".join(f"{key} {value}" for key, value in results["machine"].items()))
    print(f"\n| median of {results['rounds']} rounds (least to most) | seconds |\n|---|---|")
    for name, taken in results["seconds"].items():
        print(f"| {name} | {spread(taken)} |")
    print(f"| {HELP}, times {LEAST} | {spread(results['help_ratios'])} |")


def spread(values: Sequence[float]) -> str:
    """The median of some values, the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[2], float(sys.argv[3]))
    else:
        main()
