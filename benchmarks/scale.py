"""Data at scale: seconds and memory of checking, tokenising, sampling, resuming and scoring, by the number of rows.

One CSV file of short texts (8 to 10 words) with a target of 0 or 1 is written, and a random encoder of two layers whose
cost hides nothing. Each phase runs in a process of its own, once on the file and once on its first rows. Memory is
anonymous memory (RssAnon), asked of the kernel from outside every few milliseconds: pages of memory-mapped files, which
the kernel can drop at any time, are not in it. Bytes a row are the difference of both peaks by the difference in rows.

    python benchmarks/scale.py [--rows 1000000] [--scored 100000] [--folder DIR] [--json FILE]

``--rows 10000000`` takes 15 minutes and 2 GB of disk. Peaks vary by some MiB from run to run, which are many bytes a
row where the rows are few. Linux only.

- check: `manyhead check`'s look at all rows: rejects, balance, duplicates, leaks into dev.
- tokenise: into the token cache.
- sample: the first steps of an epoch and those across its end, packed; once with ``length_window`` 16.
- start: `manyhead train` from the start of the process to the end of its first step, the data checked and tokenised.
- resume: the same of `manyhead train --resume`.
- predict, evaluate: the commands, on ``--scored`` rows.
"""

import argparse
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

FEW_ROWS = 10_000
DEV_ROWS = 10_000
SAMPLED_STEPS = 300
BATCH_SIZE = 32
ASKED_EVERY = 0.003
CHILD = "--child"

PHASES = ("check", "tokenise", "sample", "sample, length_window 16", "start", "resume")
SCORING = ("predict", "evaluate")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--scored", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where the files are put; a temporary folder by default")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.rows <= FEW_ROWS or given.scored <= FEW_ROWS:
        parser.error(f"expected more than {FEW_ROWS} rows, which the figures are compared with")
    with tempfile.TemporaryDirectory(prefix="manyhead-scale-", dir=given.folder) as temporary:
        results = {"machine": machine(), "few_rows": FEW_ROWS, "phases": measure(Path(temporary), given)}
    print_table(results)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    versions = {name: metadata.version(name) for name in ("manyhead", "torch", "tokenizers", "numpy")}
    return {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version(), **versions}


def measure(folder: Path, given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The figures of each phase."""
    in_a_process("encoder", folder, 0)
    for rows in (FEW_ROWS, given.rows):
        write_rows(folder_of(folder, rows), rows)
    found = {phase: both(phase, folder, given.rows) for phase in PHASES}
    in_a_process("model", folder, FEW_ROWS)
    if given.scored != given.rows:
        write_rows(folder_of(folder, given.scored), given.scored)
    return found | {phase: both(phase, folder, given.scored) for phase in SCORING}


def both(phase: str, folder: Path, rows: int) -> dict[str, Any]:
    """A phase on few rows and on ``rows``."""
    few, all_rows = (in_a_process(phase, folder, count) for count in (FEW_ROWS, rows))
    grown = max(0, all_rows["peak_bytes"] - few["peak_bytes"])
    figures = {"rows": rows, "bytes_a_row": grown / (rows - FEW_ROWS), "few": few, "all": all_rows}
    print(f"{phase}: {json.dumps(figures)}", file=sys.stderr, flush=True)
    return figures


def in_a_process(phase: str, folder: Path, rows: int) -> dict[str, Any]:
    """What a process of its own answers that carries out a phase, with the most anonymous memory it had."""
    words = [sys.executable, __file__, CHILD, phase, str(folder), str(rows), repr(time.time())]
    quiet = {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "MANYHEAD_CACHE": str(folder_of(folder, rows) / "cache")}
    peak = 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(words, stdout=output, env=os.environ | quiet)
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(ASKED_EVERY)
        output.seek(0)
        text = output.read()
    last = text.strip().rpartition("\n")[2]
    if not last.startswith("{"):
        raise RuntimeError(f"{phase}: ended with {process.returncode}\n{text}")
    return {**json.loads(last), "peak_bytes": peak}


def anonymous_bytes(process: int) -> int:
    """Anonymous memory of a process; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def folder_of(folder: Path, rows: int) -> Path:
    """The folder of the files of so many rows."""
    return folder / f"rows-{rows}"


def write_rows(folder: Path, rows: int) -> None:
    """Writes ``train.csv`` and a ``dev.csv`` of other texts."""
    folder.mkdir(exist_ok=True)
    from fault_cases.work import reviews

    known = sorted({word for text in reviews()[0] for word in text.split() if word.isalpha()})
    draws = random.Random(rows)
    phrases = [" ".join(draws.choices(known, k=3)) for _ in range(20_000)]
    for name, count in (("train", rows), ("dev", DEV_ROWS)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8") as file:
            file.write("text,label\n")
            for first in range(0, count, 100_000):
                size = min(100_000, count - first)
                parts = draws.choices(phrases, k=3 * size)
                file.writelines(
                    f"{parts[3 * row]} {parts[3 * row + 1]} {parts[3 * row + 2]},{row & 1}\n" for row in range(size)
                )


def child(phase: str, folder: Path, rows: int, spawned: float) -> None:
    """Carries out a phase and prints its answer as the last line."""
    if phase == "encoder":
        from fault_cases.work import write_encoder

        write_encoder(folder / "encoder")
        answer({})
    else:
        PARTS[phase](folder, rows, spawned)


def answer(value: dict[str, Any]) -> None:
    """Prints the answer."""
    print(f"\n{json.dumps(value)}", flush=True)


def timed(function: Callable[[], object]) -> dict[str, Any]:
    """The seconds that a call takes."""
    began = time.perf_counter()
    function()
    return {"seconds": time.perf_counter() - began}


def recipe_of(folder: Path, rows: int, **stage: Any) -> Any:
    """The recipe, read."""
    from manyhead.recipe.load import load_recipe

    usual = {"schedule": "shuffled", "epochs": 2, "batch_size": BATCH_SIZE, "optimizer": {"kind": "adamw", "lr": 1e-3}}
    labels = {"0": "no", "1": "yes"}
    return load_recipe(
        {
            "manyhead": 1,
            "name": "scale",
            "data_dir": str(folder_of(folder, rows)),
            "precision": "fp32",
            "threads": 1,
            "encoder": {"checkpoint": str(folder / "encoder"), "max_tokens": 64},
            "tasks": {
                "rows": {
                    "kind": "classification",
                    "text": ["text"],
                    "target": "label",
                    "labels": labels,
                    "files": {"train": "train.csv", "dev": "dev.csv"},
                }
            },
            "stages": [{"name": "all", **usual, **stage}],
        }
    )


def check(folder: Path, rows: int, spawned: float) -> None:
    """Checks the data."""
    del spawned
    from manyhead.data.checked import checked_data

    recipe = recipe_of(folder, rows).recipe
    answer(timed(lambda: checked_data(recipe).raise_errors()))


def tokenise(folder: Path, rows: int, spawned: float) -> None:
    """Tokenises the training rows into the cache."""
    del spawned
    from manyhead.data.cache import load_task_data
    from manyhead.encoder.tokenizer import load_tokenizer

    recipe, tokenizer = recipe_of(folder, rows).recipe, load_tokenizer(folder / "encoder")
    answer(timed(lambda: load_task_data("rows", "train", recipe, tokenizer)))


def sample(folder: Path, rows: int, spawned: float, **stage: Any) -> None:
    """Packs steps from the start of an epoch and across its end."""
    del spawned
    from manyhead.batching import pack
    from manyhead.build.parts import read_parts
    from manyhead.build.plan import plan_schedule
    from manyhead.training.observer import Observer

    loaded = recipe_of(folder, rows, **stage)
    parts = read_parts(loaded, Observer())
    stores = {task: data.tokens for task, data in parts.split("train").items()}
    began = time.perf_counter()
    schedule = plan_schedule(parts, 0, loaded.recipe.stages[0])
    pack(schedule.step(0).parts, stores)
    first = time.perf_counter() - began

    seconds: list[float] = []
    for index in range(1, SAMPLED_STEPS):
        began = time.perf_counter()
        pack(schedule.step(index).parts, stores)
        seconds.append(time.perf_counter() - began)
    epoch = time.perf_counter()
    pack(schedule.step(schedule.epoch_steps).parts, stores)
    answer({"seconds": first, "epoch_seconds": time.perf_counter() - epoch, "step_seconds": statistics.median(seconds)})


def sample_alike(folder: Path, rows: int, spawned: float) -> None:
    """`sample` with batches of like lengths."""
    sample(folder, rows, spawned, length_window=16)


def start(folder: Path, rows: int, spawned: float) -> None:
    """Trains until a checkpoint is there, and stops as SIGTERM does."""
    from manyhead import faults
    from manyhead.build import train
    from manyhead.errors import StoppedError

    seconds: list[float] = []

    def hook(place: str, value: Any) -> Any:
        if place == "step: logged":
            seconds.append(time.time() - spawned)
            if len(seconds) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
        return value

    try:
        with faults.injected(hook):
            train(recipe_of(folder, rows), out=folder_of(folder, rows) / "run")
    except StoppedError:
        answer({"seconds": seconds[0]})


def resume(folder: Path, rows: int, spawned: float) -> None:
    """Goes on with the run until its first step is done; ends at once then."""
    from manyhead import faults
    from manyhead.build import train

    imported = time.time() - spawned

    def hook(place: str, value: Any) -> Any:
        if place == "step: logged":
            answer({"seconds": time.time() - spawned, "imports_seconds": imported})
            os._exit(0)
        return value

    with faults.injected(hook):
        train(recipe_of(folder, rows), out=folder_of(folder, rows) / "run", resume=True)


def model(folder: Path, rows: int, spawned: float) -> None:
    """Trains the model that scores."""
    del spawned
    from manyhead.build import train

    train(recipe_of(folder, rows, max_steps=3), out=folder / "model")
    answer({})


def predict(folder: Path, rows: int, spawned: float) -> None:
    """``manyhead predict``."""
    del spawned
    command("predict", folder, "--input", folder_of(folder, rows) / "train.csv", "--output", folder / "predicted.csv")


def evaluate(folder: Path, rows: int, spawned: float) -> None:
    """``manyhead evaluate``."""
    del spawned
    command("evaluate", folder, "--file", folder_of(folder, rows) / "train.csv")


def command(verb: str, folder: Path, *words: object) -> None:
    """Times a command on the model."""
    from manyhead.cli.main import app

    line = [verb, str(folder / "model"), "--task", "rows", *map(str, words), "--quiet"]

    def run() -> None:
        if code := app(line, standalone_mode=False):
            raise RuntimeError(f"{' '.join(line)}: ended with {code}")

    answer(timed(run))


PARTS: dict[str, Callable[[Path, int, float], None]] = {
    "check": check,
    "tokenise": tokenise,
    "sample": sample,
    "sample, length_window 16": sample_alike,
    "start": start,
    "resume": resume,
    "model": model,
    "predict": predict,
    "evaluate": evaluate,
}


def print_table(results: dict[str, Any]) -> None:
    """The results as Markdown."""
    print("; ".join(f"{key} {value}" for key, value in results["machine"].items()))
    print(f"\n| phase | rows | seconds | of {results['few_rows']:,} rows | seconds a million rows | peak MiB | "
          "bytes a row |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for phase, found in results["phases"].items():
        few, all_rows = found["few"], found["all"]
        million = (all_rows["seconds"] - few["seconds"]) / (found["rows"] - results["few_rows"]) * 1e6
        print(f"| {phase} | {found['rows']:,} | {all_rows['seconds']:.2f} | {few['seconds']:.2f} | {million:.2f} | "
              f"{all_rows['peak_bytes'] / 2**20:.0f} | {found['bytes_a_row']:.1f} |")  # fmt: skip
    print(f"\n| a step of {BATCH_SIZE} rows, drawn and packed | of {results['few_rows']:,} rows | of all | "
          "the first of an epoch, of all |\n|---|---|---|---|")  # fmt: skip
    for phase, found in results["phases"].items():
        few, all_rows = found["few"], found["all"]
        if "step_seconds" in few:
            print(f"| {phase} | {few['step_seconds'] * 1e6:.0f} µs | {all_rows['step_seconds'] * 1e6:.0f} µs | "
                  f"{all_rows['epoch_seconds']:.2f} s |")  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    else:
        main()
