"""What going on after an interruption costs, and what saving costs before it.

The quickstart recipe (three tasks of the packaged sample) with the embedded encoder of 22.7 M parameters, and with a
random one of two layers, saving after each third step. First a run that saves some times and is stopped by SIGTERM; it
measures how long training pauses for a save, and in turn with that `torch.save` of the same tensors with an fsync.
Then fresh processes go on with it: the seconds from their start to the end of their first step, and of what they are.

    python benchmarks/resume.py [--saves 8] [--rounds 5] [--json FILE]

Data and tokens come from the cache, as they do for a run that has begun. Files were written a moment ago, so they are
read from memory. Times of shared machines mean little: read the ratios, which are of the same process and minute.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

SAVE_EVERY = 3
CHILD = "--child"

IMPORTED = ("manyhead.cli.main", "manyhead.build", "manyhead.cli.progress", "manyhead.report")
PHASES = {
    "reading and comparing the data": [("manyhead.build.run", "read_parts"), ("manyhead.build.run", "compare_parts")],
    "building the model": [("manyhead.build.run", "new_model"), ("manyhead.build.run", "plan_stages")],
    "verifying the checkpoint": [("manyhead.build.run", "checkpoint_to_resume")],
    "loading the checkpoint": [("manyhead.training.stages", "load_checkpoint")],
    "the first step": [("manyhead.training.loop", "take_step")],
}
"""What of going on is timed, by the functions that do it and where they are called from."""

IMPORTING, REST = "starting Python, importing", "the rest"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="manyhead-resume-") as temporary:
        folder = Path(temporary)
        os.environ |= {"MANYHEAD_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
        started("encoder", folder / "tiny")
        encoders = {"embedded": "embedded", "tiny": str(folder / "tiny")}
        sides = {
            name: measure(folder / f"run-{name}", encoder, given.saves, given.rounds)
            for name, encoder in encoders.items()
        }
    results = {
        "machine": {
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("manyhead", "torch", "safetensors")},
        },
        "encoders": sides,
    }
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print_table(results)


def measure(run: Path, encoder: str, saves: int, rounds: int) -> dict[str, Any]:
    """One run that saves and is stopped, and ``rounds`` processes that go on with it."""
    saving = started("save", run, encoder, saves)
    checkpoints = sorted((run / "checkpoints").glob("step-*"))
    sizes = {"checkpoint": size(checkpoints[-1]), "checkpoints": len(checkpoints), "run": size(run)}
    resumes = [started("resume", run, encoder) for _ in range(rounds)]
    return {**saving, "bytes": sizes, "resumes": resumes}


def started(part: str, *arguments: object) -> dict[str, Any]:
    """What a process of its own answers that carries out ``part``."""
    words = [sys.executable, __file__, CHILD, part, repr(time.time()), *map(str, arguments)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    last = done.stdout.strip().rpartition("\n")[2]
    if not last.startswith("{"):
        raise RuntimeError(f"{part}: ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return json.loads(last)


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def child(part: str, spawned: str, *arguments: str) -> None:
    """Carries out a part and prints its answer as the last line."""
    if part == "encoder":
        from fault_cases.work import write_encoder

        write_encoder(Path(arguments[0]))
        answer({})
    elif part == "save":
        save(Path(arguments[0]), arguments[1], int(arguments[2]))
    else:
        resume(Path(arguments[0]), arguments[1], float(spawned))


def answer(value: dict[str, Any]) -> None:
    """Prints the answer."""
    print(f"\n{json.dumps(value)}", flush=True)


def command(run: Path, encoder: str) -> list[str]:
    """The words of the command that trains."""
    settings = {"encoder.checkpoint": encoder, "stages.0.checkpoint_every_steps": SAVE_EVERY,
                "stages.0.evaluate_every_steps": 1000}  # fmt: skip
    words = ["train", "quickstart", "--out", str(run), "--resume", "--quiet"]
    return [*words, *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))]


def save(run: Path, encoder: str, saves: int) -> None:
    """Trains until ``saves`` were made, and stops as SIGTERM does."""
    from manyhead import faults
    from manyhead.cli.main import app

    clock = SaveClock(run, saves)
    try:
        with faults.injected(clock.hook):
            app(command(run, encoder))
    except SystemExit as end:
        if end.code != 128 + signal.SIGTERM:
            raise
    answer(clock.found)


class SaveClock:
    """Times the pause for each save, its way to the disk, and torch.save of the same tensors."""

    def __init__(self, run: Path, saves: int) -> None:
        self.found: dict[str, Any] = {name: [] for name in ("pauses", "published", "writing_cpu", "torch_save")}
        self._last_step = saves * SAVE_EVERY + 2
        self._scratch = run.with_name(f"{run.name}-scratch")
        self._began = 0.0
        self._step = 0
        self._writing_cpu = 0.0
        self._published = threading.Event()
        self._newest: Path | None = None

    def hook(self, place: str, value: Any) -> Any:
        """Told of each place where faults may be planted."""
        now = time.perf_counter()
        if place == "save: begins":
            self._published.clear()
            self._began = time.perf_counter()
        elif place == "save: ends":
            self.found["pauses"].append(now - self._began)
        elif place == "publish: renamed" and value.parent.name == "checkpoints":
            self.found["published"].append(now - self._began)
            self.found["writing_cpu"].append(time.thread_time() - self._writing_cpu)
            self._writing_cpu = time.thread_time()
            self._newest = value
            self._published.set()
        elif place == "updated":
            self.found["parameters"] = sum(parameter.numel() for parameter in value.parameters())
        elif place == "step: logged":
            self._stepped()
        return value

    def _stepped(self) -> None:
        """After the second step from a save, when that is published, comes torch.save's turn."""
        self._step += 1
        if self._step > SAVE_EVERY and self._step % SAVE_EVERY == SAVE_EVERY - 1:
            self._published.wait()
            assert self._newest is not None
            self.found["torch_save"].append(torch_save(self._newest, self._scratch))
        if self._step == self._last_step:
            os.kill(os.getpid(), signal.SIGTERM)


def torch_save(checkpoint: Path, scratch: Path) -> float:
    """Seconds of torch.save of a checkpoint's weights and optimiser state, with an fsync."""
    import torch
    from safetensors.torch import load_file

    tensors = {name: load_file(checkpoint / f"{name}.safetensors") for name in ("weights", "optimizer")}
    began = time.perf_counter()
    with scratch.open("wb") as file:
        torch.save(tensors, file)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    scratch.unlink()
    return seconds


def resume(run: Path, encoder: str, spawned: float) -> None:
    """Goes on with a run until its first step is done; ends at once then."""
    for name in IMPORTED:
        import_module(name)
    from manyhead import faults
    from manyhead.cli.main import app

    seconds = {IMPORTING: time.time() - spawned, **dict.fromkeys(PHASES, 0.0)}
    for phase, functions in PHASES.items():
        for module, function in functions:
            time_calls(module, function, phase, seconds)

    def hook(place: str, value: Any) -> Any:
        if place == "step: logged":
            total = time.time() - spawned
            phases = {**seconds, REST: total - sum(seconds.values())}
            answer({"total": total, "cpu": time.process_time(), "phases": phases})
            os._exit(0)
        return value

    with faults.injected(hook):
        app(command(run, encoder))


def time_calls(module: str, name: str, phase: str, seconds: dict[str, float]) -> None:
    """Adds the seconds of each call of a module's function to those of ``phase``."""
    place = import_module(module)
    function: Callable[..., Any] = getattr(place, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[phase] += time.perf_counter() - began

    setattr(place, name, timed)


def print_table(results: dict[str, Any]) -> None:
    """The results as Markdown."""
    sides: dict[str, dict[str, Any]] = results["encoders"]
    print("; ".join(f"{key} {value}" for key, value in results["machine"].items()))
    names = [f"{name}, {side['parameters'] / 1e6:.2f} M parameters" for name, side in sides.items()]
    print(f"\n| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for title, cell in ROWS.items():
        print(f"| {title} | {' | '.join(cell(side) for side in sides.values())} |")


def cpu_seconds(side: dict[str, Any]) -> str:
    """A cell with the processor's share in all."""
    return spread([each["cpu"] for each in side["resumes"]], "s")


def of_resumes(phase: str | None) -> Callable[[dict[str, Any]], str]:
    """A cell with the seconds of a phase, or of all."""

    def cell(side: dict[str, Any]) -> str:
        return spread([each["total"] if phase is None else each["phases"][phase] for each in side["resumes"]], "s")

    return cell


def spread(values: Sequence[float], unit: str, factor: float = 1.0) -> str:
    """The median of some values, the smallest and the largest."""
    figures = (factor * statistics.median(values), factor * min(values), factor * max(values))
    middle, low, high = (f"{figure:.0f}" if figure >= 100 else f"{figure:.2g}" for figure in figures)
    return f"{middle} {unit} ({low} to {high})"


def ratio(above: str, below: str) -> Callable[[dict[str, Any]], str]:
    """A cell with the ratio of two medians."""
    return lambda side: f"{statistics.median(side[above]) / statistics.median(side[below]):.2f}"


ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "from the process's start to the end of the first step": of_resumes(None),
    "the processor's time in that, of all threads": cpu_seconds,
    **{f"of it {phase}": of_resumes(phase) for phase in (IMPORTING, *PHASES, REST)},
    "pause of training for a save": lambda side: spread(side["pauses"], "ms", 1000),
    "from its begin until the save is published": lambda side: spread(side["published"], "ms", 1000),
    "processor's time of writing it, beside training": lambda side: spread(side["writing_cpu"], "ms", 1000),
    "torch.save of the same tensors, with fsync": lambda side: spread(side["torch_save"], "ms", 1000),
    "pause, times torch.save": ratio("pauses", "torch_save"),
    "a checkpoint on the disk": lambda side: f"{side['bytes']['checkpoint'] / 1e6:.2f} MB",
    "the stopped run": lambda side: f"{side['bytes']['run'] / 1e6:.2f} MB, {side['bytes']['checkpoints']} checkpoints",
}


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(*sys.argv[2:])
    else:
        main()
