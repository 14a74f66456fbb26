"""transformers' Trainer, one for each task: it has no step of several tasks."""

import gc
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
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

from training_sides.examples import Block, Examples, Taken, Work


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


@dataclass(frozen=True)
class TimedTrainer:
    """A task's Trainer and its clock."""

    trainer: OrderedTrainer
    clock: Clock

    def train(self, order: list[int]) -> float:
        """Seconds of a round but for its first step."""
        self.trainer.order = order
        self.trainer.train()
        return self.clock.seconds


def side(work: Work, settings: Mapping[str, Any], *, in_turn: bool) -> Block:
    """All Trainers one after the other, kept from round to round or, ``in_turn``, each gone before the next comes."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(work.settings.threads)
    grouped = "train_sampling_strategy" in settings
    kept = {} if in_turn else {task: trainer_of(work, task, settings) for task in work.examples}

    def block(number: int) -> Taken:
        batches = work.batches(number, grouped=grouped)
        order = np.concatenate([batches[:1], batches]).ravel().tolist()
        seconds = 0.0
        for task in work.examples:
            seconds += (kept.get(task) or trainer_of(work, task, settings)).train(order)
            if in_turn:
                gc.collect()
        return Taken(seconds, sum(each.tokens(batches.ravel()) for each in work.examples.values()))

    return block


def trainer_of(work: Work, task: str, flags: Mapping[str, Any]) -> TimedTrainer:
    """One task's Trainer, which trains a round at a time."""
    given, labels = work.settings, work.settings.labels[task]
    clock = Clock()
    trainer = OrderedTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(given.encoder, num_labels=labels),
        args=TrainingArguments(
            output_dir=tempfile.gettempdir(),
            per_device_train_batch_size=given.batch_size,
            max_steps=given.steps + 1,
            use_cpu=True,
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            **flags,
        ),
        train_dataset=items(work.examples[task], as_score=labels == 1),
        data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(given.encoder)),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    return TimedTrainer(trainer, clock)


def items(examples: Examples, *, as_score: bool) -> Any:
    """The examples as the Trainer takes them."""
    found: list[dict[str, Any]] = []
    for row, (start, target) in enumerate(zip(examples.segment_starts, examples.targets, strict=True)):
        ids = examples.sequence(row).tolist()
        types = [int(place >= start) for place in range(len(ids))]
        found.append({"input_ids": ids, "token_type_ids": types, "labels": float(target) if as_score else int(target)})
    return found
