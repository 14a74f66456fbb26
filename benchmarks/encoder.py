"""Packed against padded: the same encoder, texts and batches, alternating in one process.

Ours: packed, in the precision the hardware is best at. Theirs: transformers' model, padded to the longest text of each
batch, fp32, as its documentation's fine-tuning loop does. Both train with AdamW, clipping and dropout .1.

    python benchmarks/encoder.py [--data-dir DIR] [--batch-size 32] [--rounds 12] [--json FILE]

``--data-dir`` names the folder of the CS224N files (default: $MANYHEAD_CS224N); without one the packaged sample is
used.
Times of shared machines mean little: read the ratios, medians over the rounds with their spread.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from limits import ceiling
from memory import resident
from torch import Tensor, nn

from manyhead.batching import pack
from manyhead.data.cache import load_task_data
from manyhead.data.tokens import TokenStore
from manyhead.device import choose_hardware
from manyhead.encoder.load import read_config
from manyhead.encoder.source import locate_encoder
from manyhead.encoder.tokenizer import load_tokenizer
from manyhead.inference.frozen import freeze_for_inference
from manyhead.inference.outputs import predict_store
from manyhead.model import MultiTaskModel, build_model, build_objective
from manyhead.recipe.load import load_recipe
from manyhead.schedules.base import Part
from manyhead.training.step import clear_gradients

Side = Callable[[np.ndarray], None]
"""Does one side's work on the examples it is given."""

TASK = "text"


@dataclass(frozen=True)
class Work:
    """Mixed texts of all tasks as one store, and a two-class target for each."""

    store: TokenStore
    targets: Tensor
    source: str


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default=os.environ.get("MANYHEAD_CS224N"))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--memory-steps", type=int, default=200)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    hardware = choose_hardware("cpu", "auto", None)
    work = mixed_texts(given.data_dir)
    results = {
        "machine": {**hardware.describe(), "torch": torch.__version__, "transformers": transformers.__version__},
        "python": platform.python_version(),
        "texts": {"source": work.source, "n": work.store.n_examples, "mean_tokens": float(work.store.lengths().mean())},
        "ceiling": ceiling(),
        "training": compare_training(work, given.batch_size, given.rounds, hardware.autocast),
        "inference": compare_inference(work, given.batch_size, max(3, given.rounds // 2), hardware.autocast),
        "memory": memory_growth(work, given.batch_size, given.memory_steps, hardware.autocast),
    }
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print_table(results)


def mixed_texts(data_dir: str | None) -> Work:
    """Up to 2,000 examples of each task's dev split: single texts and pairs, as their recipes encode them."""
    loaded = load_recipe("cs224n-cpu" if data_dir else "quickstart", data_dir=data_dir)
    recipe = loaded.recipe
    tokenizer = load_tokenizer(locate_encoder("embedded", None).folder)
    chosen: list[tuple[TokenStore, np.ndarray]] = []
    for name in recipe.tasks:
        store = load_task_data(name, "dev", recipe, tokenizer).tokens
        n = min(store.n_examples, 2000)
        chosen.append((store, np.arange(n * store.sequences_per_example)))
    starts = np.concatenate([store.segment_starts[rows] for store, rows in chosen])
    mixed = single_store([store.sequence(int(row)) for store, rows in chosen for row in rows], starts)
    source = "CS224N dev: SST, Quora, STS" if data_dir else "packaged sample, dev"
    return Work(mixed, torch.arange(mixed.n_examples) % 2, source)


def our_model() -> MultiTaskModel:
    """One two-class task on the embedded encoder, mean pooling, linear head."""
    recipe = load_recipe(
        {
            "manyhead": 1,
            "name": "benchmark",
            "encoder": {"checkpoint": "embedded", "pooling": "mean"},
            "tasks": {
                TASK: {
                    "kind": "classification",
                    "text": "text",
                    "target": "label",
                    "labels": ["no", "yes"],
                    "head": {"kind": "linear", "dropout": 0.1},
                    "files": {"train": "none.csv"},
                }
            },
        }
    )
    folder = locate_encoder("embedded", None).folder
    config = read_config(folder, dropout=0.1, attention_dropout=None)
    model = build_model(recipe.recipe, recipe.tables, config, folder)
    model.encoder.sparse_embedding_gradients(True)
    return model


class PaddedModel(nn.Module):
    """transformers' encoder with mean pooling and a linear head, over padded batches."""

    def __init__(self) -> None:
        super().__init__()
        folder = locate_encoder("embedded", None).folder
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.encoder = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False)
        self.dropout = nn.Dropout(0.1)
        self.dense = nn.Linear(384, 2)

    def forward(self, store: TokenStore, examples: np.ndarray) -> Tensor:
        """Logits (E, 2)."""
        lengths = torch.from_numpy(store.lengths()[examples]).long()
        width = int(lengths.max())
        ids = torch.zeros(len(examples), width, dtype=torch.int64)
        for row, example in enumerate(examples):
            ids[row, : lengths[row]] = torch.from_numpy(store.sequence(int(example)).astype(np.int64))
        columns = torch.arange(width)
        mask = (columns < lengths[:, None]).long()
        starts = torch.from_numpy(store.segment_starts[examples]).long()
        segments = (columns >= starts[:, None]).long() * mask
        hidden = self.encoder(input_ids=ids, attention_mask=mask, token_type_ids=segments).last_hidden_state
        mean = (hidden * mask[:, :, None]).sum(1) / lengths[:, None]
        return self.dense(self.dropout(mean))


def compare_training(work: Work, batch_size: int, rounds: int, autocast: torch.dtype | None) -> dict[str, Any]:
    """Examples a second of one update, ours and theirs in turn on the same batches."""
    ours, theirs = our_model(), PaddedModel()
    ours.autocast = autocast
    ours.train()
    theirs.train()
    our_step = training_step(ours, work, lambda rows: ours(pack([Part(TASK, rows)], {TASK: work.store}))[TASK])
    their_step = training_step(theirs, work, lambda rows: theirs(work.store, rows))
    return alternate(our_step, their_step, random_batches(work, batch_size, rounds + 2), warm_up=2)


def training_step(
    model: nn.Module, work: Work, forward: Callable[[np.ndarray], Tensor]
) -> Callable[[np.ndarray], None]:
    """One update of ``model``: loss, backward, clip, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step(rows: np.ndarray) -> None:
        clear_gradients(model)
        F.cross_entropy(forward(rows), work.targets[torch.from_numpy(rows)]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def compare_inference(work: Work, batch_size: int, rounds: int, autocast: torch.dtype | None) -> dict[str, Any]:
    """Examples a second of scoring 512 mixed texts: ours by length, theirs in the order given, padded."""
    ours, theirs = our_model(), PaddedModel().eval()
    freeze_for_inference(ours, autocast)
    task = load_recipe("quickstart").recipe.tasks["reviews"].model_copy(update={"labels": ["no", "yes"]})
    objective = build_objective(task, load_recipe("quickstart").tables)

    def score_ours(rows: np.ndarray) -> None:
        predict_store(ours, TASK, selected(work.store, rows), objective)

    def score_theirs(rows: np.ndarray) -> None:
        with torch.inference_mode():
            for start in range(0, len(rows), batch_size):
                theirs(work.store, rows[start : start + batch_size])

    return alternate(score_ours, score_theirs, random_batches(work, 512, rounds + 1), warm_up=1)


def selected(store: TokenStore, rows: np.ndarray) -> TokenStore:
    """The examples ``rows`` of a store of single sequences, as a store."""
    return single_store([store.sequence(int(row)) for row in rows], store.segment_starts[rows])


def single_store(sequences: list[Any], segment_starts: np.ndarray) -> TokenStore:
    """A store of the given sequences."""
    return TokenStore(
        ids=np.concatenate(sequences),
        offsets=np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]),
        segment_starts=segment_starts.astype(np.int32),
        truncated=np.zeros(len(sequences), dtype=bool),
        sequences_per_example=1,
    )


def random_batches(work: Work, size: int, count: int) -> list[np.ndarray]:
    """``count`` batches of distinct examples, the same in each run."""
    rng = np.random.default_rng(0)
    size = min(size, work.store.n_examples)
    return [rng.permutation(work.store.n_examples)[:size] for _ in range(count)]


def alternate(ours: Side, theirs: Side, batches: list[np.ndarray], *, warm_up: int) -> dict[str, Any]:
    """Runs both on each batch in turn, and which of them is first in turn too."""
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number, rows in enumerate(batches):
        sides = [("ours", ours), ("theirs", theirs)]
        for name, run in sides if number % 2 else reversed(sides):
            began = time.perf_counter()
            run(rows)
            if number >= warm_up:
                rates[name].append(len(rows) / (time.perf_counter() - began))
    ratios = [a / b for a, b in zip(rates["ours"], rates["theirs"], strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "ours_examples_per_second": statistics.median(rates["ours"]),
        "theirs_examples_per_second": statistics.median(rates["theirs"]),
        "rounds": len(ratios),
    }


def memory_growth(work: Work, batch_size: int, steps: int, autocast: torch.dtype | None) -> dict[str, Any]:
    """Resident memory over training steps of ever new packed lengths, in MiB."""
    model = our_model()
    model.autocast = autocast
    model.train()
    step = training_step(model, work, lambda rows: model(pack([Part(TASK, rows)], {TASK: work.store}))[TASK])
    marks: list[float] = []
    for number, rows in enumerate(random_batches(work, batch_size, steps)):
        step(rows)
        if number % max(1, steps // 8) == 0 or number == steps - 1:
            marks.append(resident())
    return {
        "steps": steps,
        "resident_mib": marks,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def print_table(results: dict[str, Any]) -> None:
    """The results as Markdown."""
    machine, texts = results["machine"], results["texts"]
    print(f"{machine['device_name']}, {machine['threads']} threads, {machine['precision']}, torch {machine['torch']}, "
          f"transformers {machine['transformers']}; {texts['source']}, {texts['n']} texts, "
          f"{texts['mean_tokens']:.1f} tokens on average")  # fmt: skip
    print("\n| | ours, examples/s | padded fp32, examples/s | ratio (min to max) |\n|---|---|---|---|")
    for name in ("training", "inference"):
        row = results[name]
        spread = f"{row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        rates = f"{row['ours_examples_per_second']:.0f} | {row['theirs_examples_per_second']:.0f}"
        print(f"| {name} | {rates} | {spread} |")
    limit = ", ".join(f"{name} {results['ceiling'][f'{name}_gflop_per_second']:.0f}" for name in ("fp32", "bf16"))
    marks = ", ".join(f"{mark:.0f}" for mark in results["memory"]["resident_mib"])
    print(f"\nMatrix products, GFLOP/s: {limit}. Resident MiB over {results['memory']['steps']} steps: {marks}.")


if __name__ == "__main__":
    main()
