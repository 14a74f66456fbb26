"""What `manyhead predict` adds to the model alone, and how its memory grows with the rows.

    python benchmarks/bulk.py RUN --task TASK [--rows 20000] [--rounds 3] [--memory 10000 100000] [--json FILE]

- The same rows by `Model.predict_arrays` from a list, and from a CSV file to another one, in turn in one process: ratio
  of wall and of CPU time (on a shared machine, read that of CPU time).
- Peak resident memory of `manyhead predict` on files of so many rows, each in a process of its own.

The texts are those of the packaged sample, each made another one by its number: no row is a duplicate.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

from memory import peak

CHILD = "--child"


def main() -> None:
    """Measures and prints."""
    if sys.argv[1:2] == [CHILD]:
        print(peak_of(sys.argv[2:]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="manyhead-bulk-") as temporary:
        folder = Path(temporary)
        found = {
            "rows": given.rows,
            "times": times(given.run, given.task, folder, given.rows, given.rounds) if given.rounds else {},
            "peak_mib": {rows: memory(given.run, given.task, folder, rows) for rows in given.memory},
        }
    print(json.dumps(found, indent=2))
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def times(run: Path, task: str, folder: Path, rows: int, rounds: int) -> dict[str, list[float] | float]:
    """Seconds of both sides by round, and the medians of their ratios; a first pass over some rows is not counted."""
    from manyhead.inference.bulk.request import Request, to_files
    from manyhead.inference.predictor import Model

    model = Model.load(run)
    texts = [row[1:] for row in islice(made_rows(len(model.tasks[task].text)), rows)]
    source = write(folder / "in.csv", model.tasks[task].text, rows)

    def from_file() -> None:
        request = Request(
            tasks=model.tasks,
            named=[task],
            source=source,
            form=None,
            rejected=None,
            load=lambda: model,
            note=print,
            tick=lambda _: None,
        )
        assert to_files(request, folder / "out.csv", {}, resume=False).rows == rows

    def alone() -> None:
        model.predict_arrays(task, texts)

    model.predict_arrays(task, texts[:500])
    found: dict[str, list[float]] = {"alone": [], "alone_cpu": [], "file": [], "file_cpu": []}
    for _ in range(rounds):
        for name, side in (("alone", alone), ("file", from_file)):
            wall, cpu = seconds(side)
            found[name].append(wall)
            found[f"{name}_cpu"].append(cpu)
    ratios = {
        f"rate_of_file_to_alone{kind}": statistics.median(
            one / other for one, other in zip(found[f"alone{kind}"], found[f"file{kind}"], strict=True)
        )
        for kind in ("", "_cpu")
    }
    return {**found, **ratios}


def seconds(run: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def memory(run: Path, task: str, folder: Path, rows: int) -> float:
    """Peak MiB of the command on a file of so many rows."""
    from manyhead.inference.predictor import Model

    source = write(folder / f"{rows}.csv", Model.load(run).tasks[task].text, rows)
    words = ["predict", run, "--task", task, "--input", source, "--output", folder / "out.csv", "-q"]
    command = [sys.executable, __file__, CHILD, *map(str, words)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def peak_of(words: list[str]) -> float:
    """Runs a command in this process; its peak in MiB."""
    from manyhead.cli.main import app

    app(words, standalone_mode=False)
    return peak()


def write(path: Path, columns: list[str], rows: int) -> Path:
    """A CSV file of so many rows."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *columns])
        writer.writerows(islice(made_rows(len(columns)), rows))
    return path


def made_rows(texts: int) -> Iterator[tuple[str, ...]]:
    """Rows without end: a number, then so many texts."""
    import manyhead.data

    sample: list[str] = []
    for path in sorted((Path(manyhead.data.__file__).parent / "sample").glob("*.train.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            sample += [cell for row in list(csv.reader(file))[1:] for cell in row[1:] if " " in cell]
    for number, text in enumerate(cycle(sample)):
        yield (str(number), *(f"{text} {number}" for _ in range(texts)))


if __name__ == "__main__":
    main()
