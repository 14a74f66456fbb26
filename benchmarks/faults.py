"""Kills, NaN and damaged files: what becomes of a run of manyhead, and of one of transformers' Trainer.

Both train the same tiny random BERT on the same 64 reviews of the packaged sample, 16 updates with a save after each
4th, and are taken up again as their documentation says: `manyhead train RECIPE --resume`, and
`Trainer.train(resume_from_checkpoint=get_last_checkpoint(...))`. All is read off what happened: exit codes, what was
printed, which checkpoint was used, and whether the last weights are, bit for bit, those of a run that nothing happened
to.

    python benchmarks/faults.py [--kills 10] [--flips 4] [--keep FOLDER] [--json FILE]

``--kills`` SIGKILLs at random moments, and ``--flips`` flipped bits a file, of each side. Every process is a fork of
this one, with one thread. ``--keep`` names a new folder for the runs and what they printed.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fault_cases.sides import Side

Row = tuple[str, str, str]


def main() -> int:
    """Runs all cases and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--flips", type=int, default=4)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if importlib.util.find_spec("accelerate") is None:
        print("The Trainer needs accelerate, which is not installed: pip install 'manyhead[bench]'", file=sys.stderr)
        return 2
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="manyhead-faults-") as temporary:
        folder = given.keep or Path(temporary)
        results = {"machine": machine(), **measure(folder.resolve(), given.kills, given.flips)}
    results["seconds"] = time.perf_counter() - began
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print_tables(results)
    return 0


def measure(folder: Path, kills: int, flips: int) -> dict[str, Any]:
    """All cases on both sides, by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "MANYHEAD_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "huggingface"),
    }
    import torch

    torch.set_num_threads(1)
    # Threads do not outlive a fork: whatever starts some runs in children, and here only imports.
    from fault_cases.children import run
    from fault_cases.sides import HuggingFace, Manyhead
    from fault_cases.work import write_encoder

    encoder = folder / "encoder"
    written = run(lambda: write_encoder(encoder), folder / "out")
    if written.code:
        raise RuntimeError(written.printed)
    sides = (Manyhead(encoder, folder / "manyhead"), HuggingFace(encoder))
    return {side.name: measure_side(side, folder / side.name.replace(" ", "-"), kills, flips) for side in sides}


def measure_side(side: "Side", folder: Path, kills: int, flips: int) -> dict[str, Any]:
    """All cases on one side."""
    from fault_cases import damage, singles
    from fault_cases import kills as killing
    from fault_cases.sides import Reference

    def progress(case: str) -> None:
        print(f"{side.name}: {case} ...", file=sys.stderr, flush=True)

    progress("a run that nothing happens to")
    reference = Reference(side, folder / "reference")
    progress("killed while saving")
    saving = killing.while_saving(side, reference, folder / "saving")
    progress("killed at random")
    random_kills = killing.at_random(side, reference, folder / "random", kills)
    progress("NaN")
    nan = singles.nan(side, reference, folder / "nan")
    progress("flipped bits")
    interrupted = damage.Interrupted(side, reference, folder / "damage")
    flipped = damage.flips(interrupted, flips)
    progress("broken files")
    broken = damage.broken(interrupted)
    progress("two processes")
    shared = singles.two_processes(side, reference, folder / "shared")
    return {
        "files": {"weights": side.weights, "optimizer": side.optimizer, "state": side.state},
        "saving": [asdict(each) for each in saving],
        "random": [asdict(each) for each in random_kills],
        "nan": asdict(nan),
        "flips": [{**asdict(each), "verdict": each.verdict} for each in flipped],
        "broken": [{**asdict(each), "verdict": each.verdict} for each in broken],
        "shared": asdict(shared),
    }


def machine() -> dict[str, str]:
    """What it runs on, and the versions."""
    packages = ("manyhead", "torch", "transformers", "accelerate", "safetensors")
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def print_tables(results: dict[str, Any]) -> None:
    """The results as Markdown: each side's kills while saving and flipped bits one by one, then all side by side."""
    names = [name for name in results if name not in ("machine", "seconds")]
    sides = [results[name] for name in names]
    print("; ".join(f"{key} {value}" for key, value in results["machine"].items()), f"; {results['seconds']:.0f} s")
    for name, side in zip(names, sides, strict=True):
        print(
            f"\n{name}, killed while saving:\n\n| last change in the folder | went on after step | end |\n|---|---|---|"
        )
        for kill in side["saving"]:
            end = ("same bits" if kill["same"] else "other bits") if kill["resumed"] else short(kill["told"])
            print(f"| {kill['moment']} | {kill['went_on_after'] or ''} | {end} |")
        print(f"\n{name}, a bit flipped:\n\n| file | end |\n|---|---|")
        for file in dict.fromkeys(flip["file"] for flip in side["flips"]):
            print(f"| {file} | {counted(flip['verdict'] for flip in side['flips'] if flip['file'] == file)} |")
    print(f"\n| case | {' | '.join(names)} |\n|---|---|---|")
    for case, *cells in rows(sides):
        print(f"| {case} | {' | '.join(cells)} |")


def rows(sides: Sequence[dict[str, Any]]) -> list[Row]:
    """The lines of the last table."""
    kinds = ("weights", "optimizer", "state", "others")
    found = [
        ("SIGKILL in each state of the folder while saving", *(kills_cell(side["saving"]) for side in sides)),
        (f"SIGKILL at {len(sides[0]['random'])} random moments", *(kills_cell(side["random"]) for side in sides)),
        ("NaN in the loss of one step", *(nan_cell(side["nan"]) for side in sides)),
    ]
    for kind in kinds:
        case = {"optimizer": "the optimiser's state", "state": "the run's state", "others": "any other file"}.get(
            kind, kind
        )
        cells = [counted(flip["verdict"] for flip in side["flips"] if kind_of(flip, side) == kind) for side in sides]
        found.append((f"a bit flipped in {case}", *cells))
    for what in dict.fromkeys(each["what"] for each in sides[0]["broken"]):
        cells = [counted(each["verdict"] for each in side["broken"] if each["what"] == what) for side in sides]
        found.append((f"weights, optimiser's state, run's state {what}", *cells))
    found.append(("a second process in the folder", *(shared_cell(side["shared"]) for side in sides)))
    return [row for row in found if len(row) == 3]


def kills_cell(kills: Sequence[dict[str, Any]]) -> str:
    """How many went on, and what those that did not ended with."""
    resumed = sum(kill["resumed"] for kill in kills)
    same = sum(kill["same"] for kill in kills)
    failed = counted(short(kill["told"]) for kill in kills if not kill["resumed"])
    return f"{resumed} of {len(kills)} went on, {same} to the same bits" + (f"; the others: {failed}" if failed else "")


def nan_cell(nan: dict[str, Any]) -> str:
    """Whether the step stopped it, and what is left."""
    losses = " ".join(f"{loss:.2f}" for loss in nan["losses"])
    return (
        f"exit {nan['code']}; {nan['finite']} of {nan['parameters']} parameters finite, {nan['finite_checkpoints']} of "
        f"{nan['checkpoints']} checkpoints; losses logged {losses}; run again: "
        + ("same bits as without the NaN" if nan["repaired"] else "not mended")
    )


def shared_cell(shared: dict[str, Any]) -> str:
    """What each process came to."""
    ends = [
        "ran to the end" if shared[f"{which}_code"] == 0
        else f"ended with {shared[f'{which}_code']}: {short(shared[f'{which}_told'])}"
        for which in ("first", "second")
    ]  # fmt: skip
    return f"first {ends[0]}; second {ends[1]}; {'same' if shared['same'] else 'other'} bits as one alone"


def kind_of(flip: dict[str, Any], side: dict[str, Any]) -> str:
    """Which of a checkpoint's files was damaged."""
    path = Path(flip["file"])
    own = {name: kind for kind, name in side["files"].items()}
    in_checkpoint = path.parent.name.rpartition("-")[2].isdigit()
    return own.get(path.name, "others") if in_checkpoint else "others"


def counted(verdicts: Iterable[str]) -> str:
    """Each verdict with how often it came."""
    return "; ".join(f"{verdict} ({count})" for verdict, count in Counter(verdicts).items())


def short(line: str) -> str:
    """A line without the folders of its paths."""
    return re.sub(r"/[^\s':;]*/", "", line)


if __name__ == "__main__":
    sys.exit(main())
