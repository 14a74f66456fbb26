"""Scoring by an exported ONNX graph, in fp32 and in int8, against the model itself: rows a second of one thread.

    manyhead export runs/cs224n --to onnx --out cs224n-onnx
    manyhead export runs/cs224n --to onnx-int8 --out cs224n-int8
    .venv/bin/python benchmarks/exported.py runs/cs224n cs224n-onnx cs224n-int8 --data-dir data/cs224n

Each side goes from the texts of the dev files to probabilities, tokenising included, in batches of like lengths: the
model as `Model.predict_arrays` does, in fp32 and int8, the graphs by the program that their README.md shows. Sides take
turns; seconds are the processor's, of which other programs on the machine take none.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

from manyhead.data.examples import read_examples, reference_of
from manyhead.data.resolve import resolve_files
from manyhead.errors import UsageError
from manyhead.inference.predictor import Model
from manyhead.recipe.load import load_recipe

Side = Callable[[str, list[Any]], object]


def main() -> None:
    """Runs the sides in turn and prints their rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("exports", type=Path, nargs="+")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=500, help="dev rows of each task")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sides: dict[str, Side] = {"model, fp32": model_side(given.model, "fp32")}
    try:
        sides["model, int8"] = model_side(given.model, "int8")
    except UsageError as error:
        print(error)
    sides |= {folder.name: graph_side(folder) for folder in given.exports}
    texts = dev_texts(given.model, given.data_dir, given.rows)
    rows = sum(map(len, texts.values()))
    best = dict.fromkeys(sides, float("inf"))
    for round_number in range(given.rounds + 1):
        for name, side in sides.items():
            began = time.process_time()
            for task, examples in texts.items():
                side(task, examples)
            if round_number:  # the first one warms up
                best[name] = min(best[name], time.process_time() - began)
    first = best["model, fp32"]
    for name, seconds in best.items():
        print(f"{name:30} {rows / seconds:8.0f} rows/s {first / seconds:6.2f} times the model in fp32")
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "seconds": best}, indent=2) + "\n", encoding="utf-8")


def model_side(path: Path, precision: str) -> Side:
    """The model itself."""
    model = Model.load(path, device="cpu", precision=precision, threads=1)
    return model.predict_arrays


def graph_side(folder: Path) -> Side:
    """What the page in ``folder`` shows."""
    shown: dict[str, Any] = {}
    exec((folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0], shown)
    return shown["Exported"](folder, threads=1).run


def dev_texts(path: Path, data_dir: Path, rows: int) -> dict[str, list[Any]]:
    """The first dev texts of each task."""
    stored = path / "model" / "recipe.yaml"
    recipe = load_recipe(stored if stored.is_file() else path / "recipe.yaml", data_dir=data_dir).recipe
    found: dict[str, list[Any]] = {}
    for name, task in recipe.tasks.items():
        reference = reference_of(task, "dev")
        assert reference is not None
        examples = read_examples(name, task, "dev", resolve_files(recipe)(reference), seed=recipe.seed)
        texts = [example.texts for example, _ in zip(examples, range(rows), strict=False)]
        found[name] = [each[0] for each in texts] if len(task.text) == 1 else texts
    return found


if __name__ == "__main__":
    main()
