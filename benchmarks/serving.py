"""The server under load: rate beside bulk scoring and a plain server, times, overload, slow sockets, one long text.

    python benchmarks/serving.py [--part NAME]... [--run RUN] [--data-dir DIR] [--rows 2000] [--seconds 20]

Parts, in this order; all of them where none is named:

- `rate`: texts a second with 64 clients that each wait for their answer, at 16 texts a request and at 1, beside
  `Model.predict_arrays` on the same texts, and beside FastAPI with a `pipeline` of transformers for each task
  (`serving_sides/plain.py`). Asked: 0.8 and 0.6 of bulk scoring, 3 times the plain server.
- `times`: at half of the server's rate, requests of 16 texts that come at random. Asked: p99 under 10 times p50.
- `overload`: three times its rate. Asked: 0.8 of the goodput at its rate, refusals' p99 under 50 ms, memory bounded.
- `sockets`: 8 clients while 10,000 sockets, half silent and half with endless heads, come and are kept open.
- `long`: 8 clients of one text while another one sends texts of 1 MB.

All of it runs on one machine over loopback; generator and server share its cores, as do the plain server and its own.
Requests go to the three tasks in turn, with the texts of their dev sets. ``--run`` names a run or a model; without it
a short one of the packaged encoder is trained. Times of shared machines mean little: read the ratios.
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving_sides.load import Asked, Seen, closed_loop, crowd, open_loop
from work import parser_of, print_record, quiet_transformers, record_of, three_tasks, write

from manyhead.build.run import train
from manyhead.data.examples import read_examples
from manyhead.data.resolve import resolve_files
from manyhead.inference.predictor import Model
from manyhead.recipe.load import LoadedRecipe

CLIENTS = 64
SIZES = (16, 1)
STEPS = 20
SOCKETS = 10_000
LONG_CHARS = 1_000_000
PLAIN = Path(__file__).with_name("serving_sides") / "plain.py"
SERVE = [sys.executable, "-m", "manyhead", "serve"]

Rows = Mapping[str, list[tuple[str, ...]]]
"""The texts of each task."""


@dataclass
class Bench:
    """What the parts share."""

    run: Path
    rows: Rows
    seconds: float
    threads: int | None
    widths: dict[str, tuple[int, int]]

    def asked(self, size: int) -> list[Asked]:
        """Requests of ``size`` texts of one task each, the tasks in turn."""
        draw = random.Random(0)
        by_task: list[list[Asked]] = []
        for task, rows in self.rows.items():
            mixed = draw.sample(rows, len(rows))
            some = [mixed[start : start + size] for start in range(0, len(mixed) - size + 1, size)]
            by_task.append([request(f"/v1/predict/{task}", each) for each in some])
        return [each for group in itertools.zip_longest(*by_task) for each in group if each is not None]


def main() -> None:
    """Measures and prints."""
    given = _arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    quiet_transformers()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loaded = three_tasks(given.data_dir, {"stages.0.max_steps": STEPS})
    with tempfile.TemporaryDirectory() as folder:
        run = given.run or Path(folder, "run")
        if not run.exists():
            train(loaded, out=run)
        model = Model.load(run, threads=given.threads)
        results: dict[str, Any] = record_of(model.hardware, given.data_dir, ["fastapi", "uvicorn"])
        print_record(results)
        rows = texts_of(loaded, given.rows)
        widths = {name: (max(2, len(task.label_names)), len(task.text)) for name, task in model.tasks.items()}
        bench = Bench(run, {name: rows[name] for name in model.tasks}, given.seconds, given.threads, widths)
        results["bulk"] = bulk_rate(model, bench)
        del model
        for name in given.part or PARTS:
            results[name] = PARTS[name](bench, results)
            print(f"{name}: {json.dumps(results[name], indent=1)}", flush=True)
            write(results, given.json)


def _arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--part", action="append", choices=list(PARTS))
    parser.add_argument("--run", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20.0)
    return parser.parse_args()


def texts_of(loaded: LoadedRecipe, limit: int) -> Rows:
    """The first rows of each dev set."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for name, task in loaded.recipe.tasks.items():
        some = task.model_copy(update={"limit": {"dev": limit}})
        assert isinstance(task.files.dev, str)
        path = resolve_files(loaded.recipe)(task.files.dev)
        found[name] = [each.texts for each in read_examples(name, some, "dev", path, seed=loaded.recipe.seed)]
    return found


def bulk_rate(model: Model, bench: Bench) -> dict[str, float]:
    """Texts a second of `Model.predict_arrays`, with as many of each task as requests hold."""
    least = min(map(len, bench.rows.values()))
    model.predict_arrays(next(iter(bench.rows)), next(iter(bench.rows.values()))[:64])
    rates: list[float] = []
    texts, cpu = 0, time.process_time()
    end = time.perf_counter() + bench.seconds
    while not rates or time.perf_counter() < end:
        began = time.perf_counter()
        for name, rows in bench.rows.items():
            model.predict_arrays(name, rows[:least])
        rates.append(least * len(bench.rows) / (time.perf_counter() - began))
        texts += least * len(bench.rows)
    per_cpu = texts / (time.process_time() - cpu)
    found = {"texts_per_second": sorted(rates)[len(rates) // 2], "texts_per_cpu_second": per_cpu, "rounds": len(rates)}
    print(f"bulk: {found}", flush=True)
    return found


def request(path: str, rows: Sequence[tuple[str, ...]]) -> Asked:
    """A request for some rows, ready to be sent."""
    body = json.dumps({"texts": [row[0] if len(row) == 1 else list(row) for row in rows]}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return Asked(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body, len(rows))


@contextmanager
def server(words: Sequence[str | Path], threads: int | None = None) -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its port and process."""
    environment = {**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
    with subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            address = json.loads(process.stdout.readline())["address"]
            yield int(address.rpartition(":")[2]), process.pid
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def ours(bench: Bench) -> Iterator[tuple[int, int]]:
    """manyhead's, warm."""
    threads = [] if bench.threads is None else ["--set", f"threads={bench.threads}"]
    with server([*SERVE, bench.run, "--port", "0", "--json", *threads]) as (port, process):
        asyncio.run(closed_loop(port, bench.asked(16), 8, 3))
        yield port, process


def memory_mib(process: int) -> float:
    """The most that a process has had in memory."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) / 1024


def cpu_seconds(process: int) -> float:
    """What a process has had of the processors, which others who use the machine change less than its rate."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rate(bench: Bench, results: Mapping[str, Any]) -> dict[str, Any]:
    """Closed loops of 64 clients, on both servers."""
    plain_words = [sys.executable, PLAIN, json.dumps(bench.widths)]
    found: dict[str, Any] = {}
    for name, open_server in (("ours", lambda: ours(bench)), ("plain", lambda: server(plain_words, bench.threads))):
        with open_server() as (port, process):
            for size in SIZES:
                before = cpu_seconds(process)
                seen = asyncio.run(closed_loop(port, bench.asked(size), CLIENTS, bench.seconds)).summary()
                taken = cpu_seconds(process) - before
                per_cpu = seen["texts_per_second"] * seen["seconds"] / taken
                found[f"{name}, {size} a request"] = {**seen, "texts_per_cpu_second": per_cpu}
            found[f"{name}, memory MiB"] = memory_mib(process)
    for size, unit in itertools.product(SIZES, ("texts_per_second", "texts_per_cpu_second")):
        own = found[f"ours, {size} a request"][unit]
        found[f"of bulk, {size} a request, {unit}"] = own / results["bulk"][unit]
        found[f"times plain, {size} a request, {unit}"] = own / found[f"plain, {size} a request"][unit]
    return found


def capacity(port: int, bench: Bench) -> float:
    """Requests of 16 texts that the server answers in a second."""
    seen = asyncio.run(closed_loop(port, bench.asked(16), 32, bench.seconds))
    return seen.summary()["requests_per_second"]


def times(bench: Bench, results: Mapping[str, Any]) -> dict[str, Any]:
    """Half of the rate."""
    del results
    with ours(bench) as (port, _):
        per_second = capacity(port, bench) / 2
        found = asyncio.run(open_loop(port, bench.asked(16), per_second, bench.seconds)).summary()
    return {**found, "p99 of p50": found["answered_ms"]["p99"] / found["answered_ms"]["p50"]}


def overload(bench: Bench, results: Mapping[str, Any]) -> dict[str, Any]:
    """The rate, and three times the rate."""
    del results
    with ours(bench) as (port, process):
        per_second = capacity(port, bench)
        asked = bench.asked(16)
        at_rate = asyncio.run(open_loop(port, asked, per_second, bench.seconds)).summary()
        before = memory_mib(process)
        over = asyncio.run(open_loop(port, asked, 3 * per_second, bench.seconds)).summary()
        after = memory_mib(process)
    share = over["texts_per_second"] / at_rate["texts_per_second"]
    return {"at its rate": at_rate, "at 3 times": over, "goodput": share, "memory MiB": [before, after]}


def sockets(bench: Bench, results: Mapping[str, Any]) -> dict[str, Any]:
    """8 clients without and with the crowd, which is in a process of its own."""
    del results
    with ours(bench) as (port, process):
        asked = bench.asked(1)
        alone = asyncio.run(closed_loop(port, asked, 8, bench.seconds)).summary()
        other = multiprocessing.get_context("spawn").Process(target=_crowd, args=(port, bench.seconds + 10))
        other.start()
        time.sleep(8)
        beside = asyncio.run(closed_loop(port, asked, 8, bench.seconds)).summary()
        other.join()
        memory = memory_mib(process)
    return {"alone": alone, "beside": beside, "memory MiB": memory}


def _crowd(port: int, seconds: float) -> None:
    print(f"sockets opened: {asyncio.run(crowd(port, SOCKETS, seconds))}", flush=True)


def long(bench: Bench, results: Mapping[str, Any]) -> dict[str, Any]:
    """8 clients without and with one that sends texts of 1 MB: words, and one word."""
    del results
    task = next(name for name, (_, width) in bench.widths.items() if width == 1)
    texts = ["word " * (LONG_CHARS // 5), "a" * LONG_CHARS]
    found: dict[str, Any] = {}
    with ours(bench) as (port, _):
        asked = bench.asked(1)
        found["alone"] = asyncio.run(closed_loop(port, asked, 8, bench.seconds)).summary()
        for name, text in zip(("words", "one word"), texts, strict=True):
            heavy = [request(f"/v1/predict/{task}", [(text,)])]

            async def both(heavy: list[Asked] = heavy) -> tuple[Seen, Seen]:
                return await asyncio.gather(
                    closed_loop(port, asked, 8, bench.seconds), closed_loop(port, heavy, 1, bench.seconds)
                )

            light, long_ones = asyncio.run(both())
            found[f"beside {name}"] = light.summary()
            found[f"the long ones, {name}"] = long_ones.summary()
    return found


PARTS: dict[str, Callable[[Bench, Mapping[str, Any]], dict[str, Any]]] = {
    "rate": rate,
    "times": times,
    "overload": overload,
    "sockets": sockets,
    "long": long,
}

if __name__ == "__main__":
    main()
