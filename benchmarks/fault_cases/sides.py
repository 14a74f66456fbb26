"""manyhead and transformers' Trainer, each used as its documentation says, behind the same few functions."""

import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
import yaml
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from fault_cases.children import run
from fault_cases.work import (
    BATCH_SIZE,
    EPOCHS,
    KEPT,
    LABELS,
    LR,
    MAX_TOKENS,
    ROWS,
    SAMPLE,
    SAVE_EVERY,
    SEED,
    reviews,
)
from manyhead import build, faults, report
from manyhead.cli import progress
from manyhead.cli.main import app

IMPORTED = (build, report, progress)
"""What the command imports when it runs, for children to find it imported."""

Watch = Callable[[int], None]
"""Told the step, counted from 1, that is about to be taken: before its update, in runs that begin at step 1."""


class Side(Protocol):
    """A way to train in a run folder."""

    name: str
    weights: str
    optimizer: str
    state: str

    def train(self, run: Path, watch: Watch | None = None, nan_at: int | None = None) -> None:
        """Trains in ``run``, or goes on with it, and ends as the command or script does.

        ``nan_at`` is the step whose loss is made NaN; what the model in memory then is at the end is printed.
        """
        ...

    def checkpoints(self, run: Path) -> list[Path]:
        """The checkpoints of a run, oldest first."""
        ...

    def other_files(self, run: Path) -> list[Path]:
        """Files outside of checkpoints that going on reads."""
        ...

    def went_on_after(self, printed: str) -> int | None:
        """The step that a run went on after; None where it began anew."""
        ...

    def logged_losses(self, run: Path) -> list[float]:
        """The training losses that the run's log holds."""
        ...


class Manyhead:
    """``manyhead train RECIPE --out RUN --resume``."""

    name = "manyhead"
    weights = "weights.safetensors"
    optimizer = "optimizer.safetensors"
    state = "state.json"

    def __init__(self, encoder: Path, folder: Path) -> None:
        self.recipe = folder / "recipe.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        self.recipe.write_text(yaml.safe_dump(_recipe(encoder)), encoding="utf-8")

    def train(self, run: Path, watch: Watch | None = None, nan_at: int | None = None) -> None:
        """Runs the command; the hook for faults tells the steps."""
        step = 0
        models: dict[int, nn.Module] = {}

        def hook(place: str, value: Any) -> Any:
            nonlocal step
            if place == "updated":
                models[id(value)] = value
            if place != "losses":
                return value
            step += 1
            if watch is not None:
                watch(step)
            if step != nan_at:
                return value
            return {task: loss * math.nan for task, loss in value.items()}

        try:
            with faults.injected(hook):
                app(["train", str(self.recipe), "--out", str(run), "--resume"], standalone_mode=True)
        finally:
            for model in models.values() if nan_at is not None else ():
                print_finite(model)

    def checkpoints(self, run: Path) -> list[Path]:
        """``checkpoints/step-*``."""
        return sorted((run / "checkpoints").glob("step-*"))

    def other_files(self, run: Path) -> list[Path]:
        """The recipe, the run's state, the log, the encoder's configuration and tokenizer."""
        files = [run / "recipe.yaml", run / "state.json", run / "metrics.jsonl", *(run / "encoder").rglob("*")]
        return sorted(path for path in files if path.is_file())

    def went_on_after(self, printed: str) -> int | None:
        """As the command says it."""
        found = re.findall(r"going on after step (\d+)", printed)
        return int(found[-1]) if found else None

    def logged_losses(self, run: Path) -> list[float]:
        """Those of the lines of metrics.jsonl that are of steps."""
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        return [line["losses"]["reviews"] for line in lines if line["kind"] == "step"]


class HuggingFace:
    """A script around transformers' Trainer that goes on from `get_last_checkpoint`, as the examples there do."""

    name = "transformers Trainer"
    weights = "model.safetensors"
    optimizer = "optimizer.pt"
    state = "trainer_state.json"

    def __init__(self, encoder: Path) -> None:
        self.encoder = encoder

    def train(self, run: Path, watch: Watch | None = None, nan_at: int | None = None) -> None:
        """Runs the script."""
        transformers.logging.disable_progress_bar()
        arguments = TrainingArguments(
            output_dir=str(run),
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=LR,
            warmup_steps=2,
            save_strategy="steps",
            save_steps=SAVE_EVERY,
            save_total_limit=KEPT,
            logging_steps=1,
            seed=SEED,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        )
        transformers.set_seed(SEED)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(self.encoder / "tokenizer.json"), pad_token="[PAD]", unk_token="[UNK]"
        )
        texts, grades = reviews()
        encoded = [tokenizer(text, truncation=True, max_length=MAX_TOKENS) for text in texts]
        rows = [{**dict(text), "labels": grade} for text, grade in zip(encoded, grades, strict=True)]
        trainer = _WatchedTrainer(
            model=AutoModelForSequenceClassification.from_pretrained(self.encoder, num_labels=len(LABELS)),
            args=arguments,
            train_dataset=rows,  # pyright: ignore[reportArgumentType]
            processing_class=tokenizer,
        )
        trainer.watch, trainer.nan_at = watch, nan_at
        last = get_last_checkpoint(str(run)) if run.is_dir() else None
        print(f"last checkpoint: {last}", flush=True)
        trainer.train(resume_from_checkpoint=last)
        if nan_at is not None and trainer.model is not None:
            print_finite(trainer.model)

    def checkpoints(self, run: Path) -> list[Path]:
        """``checkpoint-*``."""
        return sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))

    def other_files(self, run: Path) -> list[Path]:
        """None: a checkpoint holds all."""
        del run
        return []

    def went_on_after(self, printed: str) -> int | None:
        """As the Trainer took it up."""
        found = re.findall(r"going on after step (\d+)", printed)
        return int(found[-1]) if found and int(found[-1]) else None

    def logged_losses(self, run: Path) -> list[float]:
        """Those in trainer_state.json of the newest checkpoint."""
        state = json.loads((self.checkpoints(run)[-1] / self.state).read_text(encoding="utf-8"))
        return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


class _WatchedTrainer(Trainer):
    """Tells of each step, and makes the loss of one NaN."""

    watch: Watch | None = None
    nan_at: int | None = None
    told = False

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss: Any = super().compute_loss(*args, **kwargs)
        if not self.told:
            print(f"going on after step {self.state.global_step}", flush=True)
            self.told = True
        step = self.state.global_step + 1
        if self.watch is not None:
            self.watch(step)
        return loss * math.nan if step == self.nan_at else loss


class Reference:
    """The run that nothing happens to: its last weights, and its seconds."""

    def __init__(self, side: Side, folder: Path) -> None:
        began = time.monotonic()
        ended = run(lambda: side.train(folder / "run"), folder / "out")
        self.seconds = time.monotonic() - began
        if ended.code:
            raise RuntimeError(f"{side.name}: a run that nothing happened to ended with {ended.code}\n{ended.printed}")
        self._weights = weights_of(side, side.checkpoints(folder / "run")[-1])

    def is_met_by(self, side: Side, folder: Path) -> bool:
        """Whether the newest checkpoint of a finished run holds the same bits."""
        return same_bits(self._weights, weights_of(side, side.checkpoints(folder)[-1]))


def weights_of(side: Side, checkpoint: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint."""
    return load_file(checkpoint / side.weights)


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are the same, bit for bit."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and torch.equal(one[name].contiguous().view(torch.uint8), other[name].contiguous().view(torch.uint8))
        for name in one
    )


def print_finite(model: nn.Module) -> None:
    """Prints how many parameters of the model hold nothing but finite numbers, for `finite_in_memory`."""
    found = [bool(torch.isfinite(parameter).all()) for parameter in model.parameters()]
    print(f"finite parameters: {sum(found)} of {len(found)}", flush=True)


def finite_in_memory(printed: str) -> tuple[int, int] | None:
    """What `print_finite` printed: how many were finite, of how many."""
    found = re.search(r"finite parameters: (\d+) of (\d+)", printed)
    return None if found is None else (int(found[1]), int(found[2]))


def _recipe(encoder: Path) -> dict[str, Any]:
    return {
        "manyhead": 1,
        "name": "faults",
        "seed": SEED,
        "data_dir": str(SAMPLE),
        "precision": "fp32",
        "device": "cpu",
        "threads": 1,
        "encoder": {"checkpoint": str(encoder), "max_tokens": MAX_TOKENS, "pooling": "mean"},
        "tasks": {
            "reviews": {
                "kind": "classification",
                "text": "text",
                "target": "grade",
                "labels": dict(enumerate(LABELS)),
                "files": {"train": "reviews.train.csv"},
                "limit": {"train": ROWS},
            }
        },
        "stages": [
            {
                "epochs": EPOCHS,
                "batch_size": BATCH_SIZE,
                "checkpoint_every_steps": SAVE_EVERY,
                "keep_checkpoints": KEPT,
                "optimizer": {"kind": "adamw", "lr": LR},
                "rate": {"kind": "linear", "warmup": 2},
            }
        ],
    }
