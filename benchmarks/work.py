"""What the comparisons with other libraries share: the three tasks, times of sides that take turns, the record."""

import argparse
import importlib.metadata
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers

from manyhead.device import Hardware
from manyhead.recipe.load import LoadedRecipe, load_recipe

Seconds = Mapping[str, Sequence[float]]
"""What each side took in each round."""


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The options that each comparison has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default=os.environ.get("MANYHEAD_CS224N"))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    return parser


def three_tasks(data_dir: str | None, overrides: Mapping[str, Any]) -> LoadedRecipe:
    """The recipe of the CS224N tasks on the packaged encoder, or of the packaged sample; pairs are cross-encoded."""
    name = "cs224n-cpu" if data_dir else "quickstart"
    changed = dict(overrides)
    if not data_dir:
        changed |= {f"tasks.sentences.{key}": value for key, value in CROSS_ENCODED.items()}
    return load_recipe(name, data_dir=data_dir, overrides=changed)


CROSS_ENCODED = {"pairing": "concat", "head": {"kind": "linear", "dropout": 0.1}, "loss": "mse"}


def record_of(hardware: Hardware, data_dir: str | None, packages: Sequence[str]) -> dict[str, Any]:
    """The machine, the versions and where the texts come from."""
    versions = {name: importlib.metadata.version(name) for name in ("manyhead", "torch", "transformers", *packages)}
    texts = "CS224N: SST, Quora, STS" if data_dir else "packaged sample"
    return {"machine": hardware.describe(), "versions": versions, "texts": texts}


def print_record(record: Mapping[str, Any]) -> None:
    """One line of machine, versions and texts."""
    machine = record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    print(f"{machine['device_name']}, {machine['threads']} threads, {machine['precision']}; {versions}; "
          f"{record['texts']}", flush=True)  # fmt: skip


def write(results: Mapping[str, Any], path: Path | None) -> None:
    """Keeps the figures, where a file is named."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def quiet_transformers() -> None:
    """No bars and no warnings of new heads."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def rates(seconds: Seconds, examples: int) -> dict[str, float]:
    """Examples a second of each side in its median round of ``examples``."""
    return {name: examples / statistics.median(taken) for name, taken in seconds.items()}


def ratios(seconds: Seconds, ours: Sequence[str], theirs: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """How many times faster each of ours is than each of theirs, round by round."""
    return {own: {other: _ratio(seconds[own], seconds[other]) for other in theirs} for own in ours}


def _ratio(own: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """``of_sums`` is that of all rounds together."""
    found = spread([b / a for a, b in zip(own, other, strict=True)])
    return {"ratio": found.pop("median"), **found, "of_sums": sum(other) / sum(own)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and range."""
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    low, middle, high = quartiles
    return {"median": middle, "low_quartile": low, "high_quartile": high, "least": min(values), "most": max(values)}


def cell(ratio: Mapping[str, float]) -> str:
    """A ratio and its range."""
    return f"{ratio['ratio']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"


def print_table(title: str, found: Mapping[str, Any], ours: Sequence[str], theirs: Sequence[str]) -> None:
    """Rates of all sides, and the ratios of ours to theirs, as one Markdown table."""
    print(f"\n| {title} | examples/s | {' | '.join(f'times {name}' for name in theirs)} |")
    print("|---" * (2 + len(theirs)) + "|")
    for name in theirs:
        print(f"| {name} | {found['examples_per_second'][name]:.0f} |{' |' * len(theirs)}")
    for name in ours:
        cells = " | ".join(cell(found["ratios"][name][other]) for other in theirs)
        print(f"| {name} | {found['examples_per_second'][name]:.0f} | {cells} |")
