"""Stages over synthetic texts, with one model and one optimiser for each way of balancing."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from growth_cases import MOST_TASKS, Setting
from manyhead.build.parts import Parts, read_encoder
from manyhead.build.plan import new_model, plan_stages
from manyhead.data.table import Rejects
from manyhead.data.task_data import StringColumn, Tally, TaskData
from manyhead.data.tokens import TokenStore
from manyhead.device import choose_hardware
from manyhead.encoder.tokenizer import load_tokenizer
from manyhead.model import MultiTaskModel
from manyhead.recipe.load import load_recipe
from manyhead.schedules.base import Schedule
from manyhead.training.observer import Observer
from manyhead.training.step import Learner

CLS, SEP, FIRST_WORD = 101, 102, 2000
SHORTEST, LONGEST = 6, 128


@dataclass
class Going:
    """A stage and the number of its next step."""

    learner: Learner
    schedule: Schedule
    next: int = 0


class Learners:
    """Makes the stages of settings, and keeps them."""

    def __init__(self, threads: int | None) -> None:
        self.hardware = choose_hardware("cpu", "auto", threads)
        self._models: dict[str, tuple[MultiTaskModel, torch.optim.Optimizer]] = {}
        self._stores: dict[tuple[int, int | None], TokenStore] = {}
        self._stages: dict[Setting, Going] = {}

    def stage(self, setting: Setting) -> Going:
        """The stage of ``setting``, which goes on where it was left."""
        if setting not in self._stages:
            self._stages[setting] = self._made(setting)
        return self._stages[setting]

    def _made(self, setting: Setting) -> Going:
        parts = self._parts(setting)
        if setting.balancing not in self._models:
            model = new_model(parts)
            self._models[setting.balancing] = (model, plan_stages(parts, model)[0].learner.optimizer)
        model, optimizer = self._models[setting.balancing]
        plan = plan_stages(parts, model)[0]
        return Going(replace(plan.learner, optimizer=optimizer), plan.schedule)

    def _parts(self, setting: Setting) -> Parts:
        names = [f"task{number}" for number in range(MOST_TASKS)]
        task = {
            "kind": "classification",
            "text": "text",
            "target": "label",
            "labels": ["no", "yes"],
            "head": {"kind": "hidden", "dropout": 0.1},
            "files": {"train": "synthetic.csv"},
        }
        stage = {
            "tasks": names[: setting.tasks],
            "schedule": "interleaved",
            "batch_size": setting.batch,
            "length_window": setting.length_window,
            "balancing": setting.balancing,
            "optimizer": {"kind": "adamw", "lr": 1e-5},
        }
        encoder = {"checkpoint": "embedded", "pooling": "mean"}
        loaded = load_recipe(
            {
                "manyhead": 1,
                "name": "growth",
                "encoder": encoder,
                "tasks": dict.fromkeys(names, task),
                "stages": [stage],
            }
        )
        source, folder, config, _ = read_encoder(loaded, Observer())
        data = {(name, "train"): _data(name, self._store(setting)) for name in names}
        tokenizer = load_tokenizer(folder)
        return Parts(loaded.recipe, loaded.tables, source, folder, config, tokenizer, data, self.hardware)

    def _store(self, setting: Setting) -> TokenStore:
        key = (setting.rows, setting.tokens)
        if key not in self._stores:
            self._stores[key] = synthetic_texts(*key)
        return self._stores[key]


def synthetic_texts(rows: int, tokens: int | None) -> TokenStore:
    """Texts of random words, the same in each run; lengths as those of short texts where ``tokens`` does not say."""
    rng = np.random.default_rng(0)
    lengths = np.full(rows, tokens) if tokens else (2 + rng.gamma(4, 7, rows)).astype(int).clip(SHORTEST, LONGEST)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids: NDArray[np.uint16] = rng.integers(FIRST_WORD, 30_000, offsets[-1], dtype=np.uint16)
    ids[offsets[:-1]], ids[offsets[1:] - 1] = CLS, SEP
    return TokenStore(ids, offsets, lengths.astype(np.int32), np.zeros(rows, bool), 1)


def _data(name: str, store: TokenStore) -> TaskData:
    """The texts as a task's training split, every second of the one class."""
    rows = np.arange(store.n_examples)
    no_ids = StringColumn(np.empty(0, np.uint8), np.zeros(len(rows) + 1, np.int64))
    tally = Tally(len(rows), Rejects(), 0, 0, 0)
    return TaskData(name, "train", store, rows % 2, rows + 1, no_ids, "", "", None, tally, ())
