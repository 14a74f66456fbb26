"""Scoring texts with three tasks against sentence-transformers and transformers: the same encoder and texts, in turn.

Ours: `Model.predict_arrays` from texts to probabilities, tokenising included, on a model that a run of one step made.
Theirs: a `CrossEncoder.predict` for each task, in fp32 as it comes and with bf16 weights, and a text-classification
`pipeline` for each with batches of 32 (by default it takes one text at a time). Heads are new on all sides: this
compares speed, not scores. Work are the dev sets of the three tasks, one after the other, times added.

    python benchmarks/scoring.py [--data-dir DIR] [--all] [--rounds 3] [--json FILE]

``--data-dir`` names the folder of the CS224N files (default: $MANYHEAD_CS224N); without one the packaged sample is
used. Of each dev set the first 2,000 rows are scored, with ``--all`` all of them. Times of shared machines mean little:
read the ratios, medians over the rounds with their spread.

What differs: CrossEncoder takes pairs alone, so a single text gets an empty second one, which costs a token. Its bf16
weights are bf16 throughout, ours only in the products. CrossEncoder and we sort by length, the pipeline does not.
"""

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from work import parser_of, print_record, print_table, quiet_transformers, rates, ratios, record_of, three_tasks, write

from manyhead.build.run import train
from manyhead.data.examples import read_examples
from manyhead.data.resolve import resolve_files
from manyhead.encoder.source import locate_encoder
from manyhead.inference.predictor import Model
from manyhead.recipe.load import LoadedRecipe
from manyhead.recipe.schema import Task

Texts = Mapping[str, list[tuple[str, ...]]]
"""The texts of each task: one or two for each example."""

Side = Callable[[Texts], object]
"""Scores all of them."""

ROWS = 2000
BATCH = 32
OURS = ("ours", "ours, fp32")
THEIRS = ("CrossEncoder", "CrossEncoder, bf16", "pipeline")


def main() -> None:
    """Measures and prints."""
    parser = parser_of(__doc__)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    quiet_transformers()
    loaded = small_recipe(given.data_dir, given.threads)
    texts = {name: dev_texts(loaded, name, None if given.all else ROWS) for name in loaded.recipe.tasks}
    with tempfile.TemporaryDirectory() as folder:
        run = train(loaded, out=Path(folder, "run")).path
        model = Model.load(run, threads=given.threads)
        sides: dict[str, Side] = {
            "ours": our_side(model),
            "ours, fp32": our_side(Model.load(run, precision="fp32", threads=given.threads)),
            **their_sides(model.tasks, Path(folder)),
        }
        seconds = alternate(sides, texts, given.rounds)
    examples = sum(map(len, texts.values()))
    results = {
        **record_of(model.hardware, given.data_dir, ["sentence-transformers"]),
        "onnx": "not measured" if importlib.util.find_spec("onnxruntime") else "onnxruntime is not installed",
        "rounds": given.rounds,
        "examples": {name: len(rows) for name, rows in texts.items()},
        "examples_per_second": rates(seconds, examples),
        "ratios": ratios(seconds, OURS, THEIRS),
        "seconds": seconds,
    }
    write(results, given.json)
    print_record(results)
    print_table(f"{examples} dev examples of three tasks", results, OURS, THEIRS)
    print(f"\n{given.rounds} rounds. CrossEncoder's ONNX backend, int8 or other: {results['onnx']}.")


def small_recipe(data_dir: str | None, threads: int | None) -> LoadedRecipe:
    """A run of one step with linear heads."""
    overrides: dict[str, Any] = {"stages.0.max_steps": 1, "stages.0.epoch_examples": {}}
    for task in three_tasks(data_dir, {}).recipe.tasks:
        overrides |= {f"tasks.{task}.head": {"kind": "linear"}, f"tasks.{task}.limit": {"train": 64, "dev": 64}}
    return three_tasks(data_dir, overrides | ({"threads": threads} if threads else {}))


def dev_texts(loaded: LoadedRecipe, name: str, limit: int | None) -> list[tuple[str, ...]]:
    """The texts of a task's dev split, or of its first ``limit`` rows."""
    task = loaded.recipe.tasks[name].model_copy(update={"limit": {} if limit is None else {"dev": limit}})
    assert isinstance(task.files.dev, str)
    path = resolve_files(loaded.recipe)(task.files.dev)
    return [example.texts for example in read_examples(name, task, "dev", path, seed=loaded.recipe.seed)]


def our_side(model: Model) -> Side:
    """Arrays of predictions of each task."""
    return lambda texts: [model.predict_arrays(name, rows) for name, rows in texts.items()]


def their_sides(tasks: Mapping[str, Task], folder: Path) -> dict[str, Side]:
    """A model for each task, the same weights on all sides."""
    folders = {name: save_with_head(folder / name, len(task.label_names) or 1) for name, task in tasks.items()}
    cross = {name: CrossEncoder(str(each), device="cpu") for name, each in folders.items()}
    kwargs = {"dtype": torch.bfloat16}
    cast = {name: CrossEncoder(str(each), device="cpu", model_kwargs=kwargs) for name, each in folders.items()}
    pipelines: dict[str, Any] = {
        name: transformers.pipeline("text-classification", model=str(each), device="cpu", batch_size=BATCH)
        for name, each in folders.items()
    }

    def score_cross(models: Mapping[str, CrossEncoder]) -> Side:
        return lambda texts: [
            models[name].predict([(row[0], row[1] if len(row) > 1 else "") for row in rows], show_progress_bar=False)
            for name, rows in texts.items()
        ]

    def score_pipeline(texts: Texts) -> object:
        keys = ("text", "text_pair")
        return [
            pipelines[name]([dict(zip(keys, row, strict=False)) for row in rows], top_k=None)
            for name, rows in texts.items()
        ]

    return dict(zip(THEIRS, (score_cross(cross), score_cross(cast), score_pipeline), strict=True))


def save_with_head(folder: Path, labels: int) -> Path:
    """The packaged encoder with a new head of ``labels`` outputs, as transformers keeps it."""
    encoder = locate_encoder("embedded", None).folder
    AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=labels).save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return folder


def alternate(sides: Mapping[str, Side], texts: Texts, rounds: int) -> dict[str, list[float]]:
    """Seconds of each side for all texts in each round; a few texts come first, which are not counted."""
    few = {name: rows[: 2 * BATCH] for name, rows in texts.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side(few)
    for number in range(rounds):
        names = list(sides)
        for name in names[::-1] if number % 2 else names:
            began = time.perf_counter()
            sides[name](texts)
            seconds[name].append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    main()
