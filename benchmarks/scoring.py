"""Scoring texts with three tasks against sentence-transformers and transformers: the same weights and texts, in turn.

A short run of `cs224n-cpu` with BERT's pooler and linear heads makes the model: what comes out of it is exactly a
`BertForSequenceClassification` for each task, which all the others get. Ours: `Model.predict_arrays` from texts to
probabilities, tokenising included, in bf16 (where the hardware has it), int8 and fp32. Theirs: a
`CrossEncoder.predict` for each task, in fp32 as it comes, with bf16 weights and (where onnxruntime and onnx are
installed) as ONNX in int8; and a text-classification `pipeline` for each with batches of 32 (by default it takes one
text at a time). Work are the dev sets of the three tasks, one after the other, times added; the scores of each side
stand beside its speed, and how far they are from those of the same library in fp32.

    python benchmarks/scoring.py [--data-dir DIR] [--all] [--rounds 3] [--run RUN] [--clock cpu] [--json FILE]

``--data-dir`` names the folder of the CS224N files (default: $MANYHEAD_CS224N); without one the packaged sample is
used. Of each dev set the first 2,000 rows are scored, with ``--all`` all of them. ``--run`` keeps the run in a folder,
or uses the one there. Times of shared machines mean little: read the ratios, medians over the rounds with their spread;
``--clock cpu`` counts the processor's seconds instead, for ``--threads 1``.

What differs: CrossEncoder takes pairs alone, so a single text gets an empty second one, which costs a token and moves
its scores. Its bf16 weights are bf16 throughout, ours only in the products. CrossEncoder and we sort by length, the
pipeline does not. The ONNX backend is sentence-transformers' own but for its loader, which wants an older transformers:
the same sorting and batches, the graph that torch exports, and weights in int8 by channel as `avx512_vnni` has them.
"""

import argparse
import importlib
import importlib.util
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from sentence_transformers import CrossEncoder
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from work import parser_of, print_record, print_table, quiet_transformers, rates, ratios, record_of, three_tasks, write

from manyhead.build.run import train
from manyhead.data.examples import Example, read_examples
from manyhead.data.resolve import resolve_files
from manyhead.encoder.source import locate_encoder
from manyhead.evaluation.metrics import task_scores
from manyhead.inference.predictor import Model
from manyhead.recipe.load import LoadedRecipe
from manyhead.recipe.schema import Task

Rows = Mapping[str, list[Example]]
"""The dev rows of each task."""

Values = dict[str, np.ndarray]
"""By task what is predicted: class indices, or scores."""

Side = Callable[[Rows], Values]
"""Scores all of them."""

ROWS = 2000
BATCH = 32
STEPS = 300
EQUAL = 0.003
"""Scores of dev that differ by less count as equal."""
OURS = ("ours", "ours, int8", "ours, fp32")
PRECISIONS = {"ours": None, "ours, int8": "int8", "ours, fp32": "fp32"}
FP32 = {"ours": "ours, fp32", "theirs": "CrossEncoder"}
NAMES = ("input_ids", "attention_mask", "token_type_ids")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    """Measures and prints."""
    given = _arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    quiet_transformers()
    loaded = small_recipe(given.data_dir, given.threads)
    rows = {name: dev_rows(loaded, name, None if given.all else ROWS) for name in loaded.recipe.tasks}
    with tempfile.TemporaryDirectory() as folder:
        run = given.run or Path(folder, "run")
        if not run.exists():
            train(loaded, out=run)
        models = {name: Model.load(run, precision=PRECISIONS[name], threads=given.threads) for name in OURS}
        sides = {name: our_side(model) for name, model in models.items()}
        sides |= their_sides(models["ours, fp32"], Path(folder), models["ours"].hardware.threads)
        seconds, values = alternate(sides, rows, given.rounds, CLOCKS[given.clock])
    tasks, theirs = loaded.recipe.tasks, [name for name in sides if name not in OURS]
    examples = sum(map(len, rows.values()))
    scores = {name: dev_scores(tasks, rows, found) for name, found in values.items()}
    results: dict[str, Any] = {
        **record_of(models["ours"].hardware, given.data_dir, ["sentence-transformers", *_onnx_versions()]),
        "clock": given.clock,
        "rounds": given.rounds,
        "examples": {name: len(found) for name, found in rows.items()},
        "examples_per_second": rates(seconds, examples),
        "ratios": ratios(seconds, OURS, theirs),
        "seconds": seconds,
        "scores": scores,
        "largest_difference": {name: largest_difference(scores, name) for name in scores},
    }
    write(results, given.json)
    print_record(results)
    print_table(f"{examples} dev examples of three tasks", results, OURS, theirs)
    print_scores(tasks, results)
    print_best(results, theirs)


def _arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    return parser.parse_args()


def small_recipe(data_dir: str | None, threads: int | None) -> LoadedRecipe:
    """A short run whose model is BERT's own for the classification of texts."""
    overrides: dict[str, Any] = {"stages.0.max_steps": STEPS, "encoder.pooling": "pooler"}
    for task in three_tasks(data_dir, {}).recipe.tasks:
        overrides |= {f"tasks.{task}.head": {"kind": "linear", "dropout": 0.1}, f"tasks.{task}.limit": {"dev": 500}}
    if data_dir:
        overrides["stages.0.epoch_examples"] = {"para": 6000}
    return three_tasks(data_dir, overrides | ({"threads": threads} if threads else {}))


def dev_rows(loaded: LoadedRecipe, name: str, limit: int | None) -> list[Example]:
    """A task's dev split, or its first ``limit`` rows."""
    task = loaded.recipe.tasks[name].model_copy(update={"limit": {} if limit is None else {"dev": limit}})
    assert isinstance(task.files.dev, str)
    path = resolve_files(loaded.recipe)(task.files.dev)
    return list(read_examples(name, task, "dev", path, seed=loaded.recipe.seed))


def our_side(model: Model) -> Side:
    """Arrays of predictions of each task."""
    return lambda rows: {
        name: model.predict_arrays(name, [row.texts for row in found])[0].values for name, found in rows.items()
    }


def their_sides(model: Model, folder: Path, threads: int) -> dict[str, Side]:
    """The same weights as models of transformers, one for each task, in the hands of other libraries."""
    folders = {name: save_for_transformers(model, name, folder / name) for name in model.tasks}
    tasks = model.tasks
    bf16 = {"dtype": torch.bfloat16}
    sides = {
        "CrossEncoder": cross_side(tasks, {name: cross_encoder(each) for name, each in folders.items()}),
        "CrossEncoder, bf16": cross_side(
            tasks, {name: cross_encoder(each, model_kwargs=bf16) for name, each in folders.items()}
        ),
    }
    if _onnx_versions():
        found = {name: cross_encoder(each) for name, each in folders.items()}
        for name, each in found.items():
            each[0].model = OnnxClassifier(each[0].model, folder / f"{name}.onnx", threads)
        sides["CrossEncoder, ONNX int8"] = cross_side(tasks, found)
    pipelines: dict[str, Any] = {
        name: transformers.pipeline("text-classification", model=str(each), device="cpu", batch_size=BATCH)
        for name, each in folders.items()
    }
    return {**sides, "pipeline": pipeline_side(tasks, pipelines)}


def save_for_transformers(model: Model, name: str, folder: Path) -> Path:
    """The model with the head of task ``name``, as transformers keeps it."""
    source, weights = locate_encoder("embedded", None).folder, model.network.state_dict()
    head = model.network.head(name).state_dict()
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(source, num_labels=len(head["dense.bias"]))
    taken = {key.removeprefix("encoder.model."): each for key, each in weights.items() if key.startswith("encoder.")}
    taken |= {f"pooler.{key.removeprefix('pooling.')}": each for key, each in weights.items() if "pooling." in key}
    theirs.bert.load_state_dict(taken)
    theirs.classifier.load_state_dict({key.removeprefix("dense."): each for key, each in head.items()})
    theirs.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def cross_encoder(folder: Path, **options: Any) -> Any:
    """A CrossEncoder that gives logits."""
    return CrossEncoder(str(folder), device="cpu", activation_fn=nn.Identity(), **options)


def cross_side(tasks: Mapping[str, Task], models: Mapping[str, Any]) -> Side:
    """A `CrossEncoder.predict` for each task, with its defaults."""

    def score(rows: Rows) -> Values:
        found: Values = {}
        for name, examples in rows.items():
            pairs = [(row.texts[0], row.texts[1] if len(row.texts) > 1 else "") for row in examples]
            found[name] = read_logits(tasks[name], models[name].predict(pairs, show_progress_bar=False))
        return found

    return score


def pipeline_side(tasks: Mapping[str, Task], pipelines: Mapping[str, Any]) -> Side:
    """A pipeline for each task."""

    def score(rows: Rows) -> Values:
        found: Values = {}
        for name, examples in rows.items():
            inputs = [dict(zip(("text", "text_pair"), row.texts, strict=False)) for row in examples]
            outputs = pipelines[name](inputs, top_k=None, function_to_apply="none")
            ordered = [[each["score"] for each in sorted(output, key=lambda each: each["label"])] for output in outputs]
            found[name] = read_logits(tasks[name], np.array(ordered))
        return found

    return score


def read_logits(task: Task, logits: Any) -> np.ndarray:
    """Class indices or scores of logits (E,) or (E, O)."""
    logits = np.asarray(logits, dtype=np.float32)
    logits = logits.reshape(len(logits), -1)
    if task.kind == "regression":
        return logits[:, 0]
    return logits.argmax(1) if logits.shape[1] > 1 else (logits[:, 0] > 0).astype(np.int64)


class OnnxClassifier(nn.Module):
    """A classifier of transformers as an ONNX graph with weights in int8, behind the interface it had."""

    def __init__(self, model: Any, path: Path, threads: int) -> None:
        super().__init__()
        runtime: Any = importlib.import_module("onnxruntime")
        quantization: Any = importlib.import_module("onnxruntime.quantization")
        self.config = model.config
        self.dtype = torch.float32
        ids = torch.ones(2, 16, dtype=torch.int64)
        axes = {name: {0: "batch", 1: "tokens"} for name in NAMES} | {"logits": {0: "batch"}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Logits(model).eval(), (ids, ids, ids * 0), str(path), input_names=list(NAMES), output_names=["logits"],
                dynamic_axes=axes, dynamo=False, opset_version=17,
            )  # fmt: skip
        small = path.with_suffix(".int8.onnx")
        quantization.quantize_dynamic(path, small, per_channel=True, weight_type=quantization.QuantType.QInt8)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = runtime.InferenceSession(str(small), options, providers=["CPUExecutionProvider"])

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor, **_: object
    ) -> dict[str, torch.Tensor]:
        """Logits, as the classifier gives them."""
        inputs = zip(NAMES, (input_ids, attention_mask, token_type_ids), strict=True)
        return {"logits": torch.from_numpy(self._session.run(None, {name: each.numpy() for name, each in inputs})[0])}


class _Logits(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits


def alternate(
    sides: Mapping[str, Side], rows: Rows, rounds: int, clock: Callable[[], float]
) -> tuple[dict[str, list[float]], dict[str, Values]]:
    """Seconds of each side for all texts in each round, and what it predicts; a few texts come first, not counted."""
    few = {name: found[: 2 * BATCH] for name, found in rows.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    values: dict[str, Values] = {}
    for side in sides.values():
        side(few)
    for number in range(rounds):
        names = list(sides)
        for name in names[::-1] if number % 2 else names:
            began = clock()
            values[name] = sides[name](rows)
            seconds[name].append(clock() - began)
    return seconds, values


def dev_scores(tasks: Mapping[str, Task], rows: Rows, values: Values) -> dict[str, float]:
    """The primary metric of each task."""
    found: dict[str, float] = {}
    for name, task in tasks.items():
        targets = np.array([row.target for row in rows[name]])
        found[name] = task_scores(task.kind, values[name], targets, task.range, len(task.label_names))[task.metric]
    return found


def largest_difference(scores: Mapping[str, Mapping[str, float]], name: str) -> float:
    """The largest difference over tasks from the scores of the same library in fp32."""
    fp32 = scores[FP32["ours" if name in OURS else "theirs"]]
    return max(abs(value - fp32[task]) for task, value in scores[name].items())


def print_scores(tasks: Mapping[str, Task], results: Mapping[str, Any]) -> None:
    """The dev scores of each side, as a Markdown table."""
    print(f"\n| dev scores | {' | '.join(tasks)} | largest difference from fp32 |")
    print("|---" * (2 + len(tasks)) + "|")
    for name, scores in results["scores"].items():
        cells = " | ".join(f"{scores[task]:.4f}" for task in tasks)
        print(f"| {name} | {cells} | {results['largest_difference'][name]:.4f} |")


def print_best(results: dict[str, Any], theirs: Sequence[str]) -> None:
    """The fastest of both sides among those whose scores are those of fp32."""
    speed, apart = results["examples_per_second"], results["largest_difference"]
    best = {
        label: max((name for name in names if apart[name] <= EQUAL), key=lambda name: speed[name])
        for label, names in (("ours", OURS), ("theirs", theirs))
    }
    ratio = results["ratios"][best["ours"]][best["theirs"]]["ratio"]
    print(
        f"\nAt equal scores (within {EQUAL} of fp32) {best['ours']} is {ratio:.2f} times as fast as {best['theirs']}."
    )
    if not _onnx_versions():
        print("CrossEncoder's ONNX backend was not measured: onnxruntime or onnx is not installed.")


def _onnx_versions() -> list[str]:
    """The packages that an ONNX graph in int8 needs, where both are installed."""
    names = ["onnx", "onnxruntime"]
    return names if all(importlib.util.find_spec(name) for name in names) else []


if __name__ == "__main__":
    main()
