"""The Trainer's side of `training.py`: one Trainer for each task, which trains a block of steps at a time."""

import tempfile
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from work import Block, Work

from manyhead.data.task_data import TaskData
from manyhead.encoder.source import locate_encoder


class OrderedTrainer(Trainer):
    """A Trainer that takes the rows in the order it is given."""

    order: list[int]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        del train_dataset
        return self.order


class Clock(TrainerCallback):
    """The time from the end of the first step to the end of the last."""

    began = 0.0
    seconds = 0.0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Takes the time."""
        del args, control, kwargs
        if state.global_step == 1:
            self.began = time.perf_counter()
        if state.global_step == state.max_steps:
            self.seconds = time.perf_counter() - self.began


def their_side(work: Work, flags: Mapping[str, Any]) -> Block:
    """A Trainer for each task, one after the other."""
    trainers = {task: trainer_of(work, task, flags) for task in work.tasks}

    def block(number: int) -> float:
        seconds = 0.0
        for trainer, clock in trainers.values():
            trainer.order = trainer_rows(work, number, grouped="train_sampling_strategy" in flags)
            trainer.train()
            seconds += clock.seconds
        return seconds

    return block


def trainer_of(work: Work, task: str, flags: Mapping[str, Any]) -> tuple[OrderedTrainer, Clock]:
    """One task's Trainer, which trains a round at a time, and its clock."""
    folder, data = locate_encoder("embedded", None).folder, work.parts.data[task, "train"]
    labels = len(work.tasks[task].label_names) or 1
    clock = Clock()
    trainer = OrderedTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels),
        args=TrainingArguments(
            output_dir=tempfile.gettempdir(),
            per_device_train_batch_size=work.batch_size,
            max_steps=work.steps + 1,
            use_cpu=True,
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            **flags,
        ),
        train_dataset=items(data, as_score=labels == 1),
        data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(folder)),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer, clock


def items(data: TaskData, *, as_score: bool) -> Any:
    """The examples as the Trainer takes them."""
    found: list[dict[str, Any]] = []
    assert data.targets is not None
    for row, (start, target) in enumerate(zip(data.tokens.segment_starts, data.targets, strict=True)):
        ids = data.tokens.sequence(row).tolist()
        types = [int(place >= start) for place in range(len(ids))]
        found.append({"input_ids": ids, "token_type_ids": types, "labels": float(target) if as_score else int(target)})
    return found


def trainer_rows(work: Work, number: int, *, grouped: bool) -> list[int]:
    """The rows of a round, a batch that is not counted before them."""
    rows = np.arange(work.batches * work.batch_size)
    if not grouped:
        rows = np.random.default_rng(1).permutation(rows)
    batches = rows.reshape(work.batches, work.batch_size)[number :: work.rounds]
    return np.concatenate([batches[:1], batches]).ravel().tolist()
