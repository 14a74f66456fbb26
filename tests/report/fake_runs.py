"""Run folders as training leaves them, with made-up figures that behave like real ones."""

import csv
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from manyhead.evaluation.metrics import majority_baseline, overall, task_scores


@dataclass(frozen=True)
class FakeTask:
    """A task: its classes by cell, or none for a score from 0 to 5; and how well it ends up (0 to 1)."""

    name: str
    labels: dict[Any, str] | None
    rows: int
    skill: float
    loss: float
    columns: tuple[str, ...] = ("text",)

    @property
    def kind(self) -> Any:
        return "regression" if self.labels is None else "classification"

    @property
    def metric(self) -> str:
        return "pearson" if self.labels is None else "accuracy"

    def targets(self, generator: np.random.Generator, rows: int) -> np.ndarray:
        if self.labels is None:
            return np.round(generator.beta(1.3, 1.1, rows) * 5, 1)
        return np.minimum(generator.poisson(len(self.labels) / 2 - 0.3, rows), len(self.labels) - 1)

    def predict(self, generator: np.random.Generator, targets: np.ndarray, skill: float) -> np.ndarray:
        if self.labels is None:
            return targets * skill + generator.normal(2.5 * (1 - skill), 1.1 - 0.6 * skill, len(targets))
        guess = np.clip(targets + generator.choice([-1, 0, 1], len(targets)), 0, len(self.labels) - 1)
        return np.where(generator.random(len(targets)) < skill, targets, guess)

    def scores(self, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float | int]:
        return task_scores(self.kind, predictions, targets, (0, 5), len(self.labels or ()))

    def recipe(self) -> dict[str, Any]:
        target: dict[str, Any] = {"range": [0, 5]} if self.labels is None else {"labels": self.labels}
        return {
            "kind": self.kind,
            "text": list(self.columns),
            "target": "target",
            "metric": self.metric,
            "files": FILES,
            **target,
        }


SST = FakeTask(
    "sst", {0: "negative", 1: "somewhat negative", 2: "neutral", 3: "somewhat positive", 4: "positive"}, 130, 0.3, 1.6
)
PAIR = ("text_1", "text_2")
FILES = {"train": "train.csv", "dev": "dev.csv"}
PARA = FakeTask("para", {0: "different", 1: "duplicate"}, 200, 0.7, 0.7, PAIR)
STS = FakeTask("sts", None, 110, 0.85, 4.0, PAIR)
TEXT = """the a of and to in is was it this that with for film story actor scene music plot never not no two seven 12
how what why does great dull warm cold funny slow brilliant weak charming tired long short river city dog train"""
WORDS = TEXT.split()


def sentences(generator: np.random.Generator, rows: int) -> list[str]:
    """Texts of 3 to 24 words, a quarter of them questions."""
    lengths, asks = generator.integers(3, 25, rows).tolist(), (generator.random(rows) < 0.25).tolist()
    words = generator.integers(len(WORDS), size=(rows, 24)).tolist()
    return [
        " ".join(WORDS[word] for word in row[:length]).capitalize() + ("?" if ask else ".")
        for row, length, ask in zip(words, lengths, asks, strict=True)
    ]


def fabricate(
    folder: Path,
    tasks: Sequence[FakeTask] = (SST, PARA, STS),
    *,
    steps: int = 60,
    evaluations: int = 4,
    finished: bool = True,
    stages: Sequence[str] = ("multitask",),
    seed: int = 13,
) -> Path:
    """Write a run folder; one that is not ``finished`` has no summary and no predictions."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    (folder / "predictions").mkdir()
    primary = {task.name: task.metric for task in tasks}
    dev = {task.name: task.targets(np.random.default_rng(task.rows), task.rows) for task in tasks}
    recipe = {"manyhead": 1, "name": folder.name, "seed": seed, "encoder": {"checkpoint": "embedded"}}
    recipe |= {"tasks": {task.name: task.recipe() for task in tasks}, "stages": [{"name": name} for name in stages]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
    state = {
        "status": "finished" if finished else "stopped",
        "started": "2025-11-20 09:14:03",
        "versions": {"manyhead": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0"},
        "hardware": {"device": "cpu", "cores": 8, "memory": "32 GiB", "precision": "fp32", "threads": 8},
        "data": {f"{task.name}.dev": {"rows": task.rows, "data": f"{task.rows:064}", "labels": None} for task in tasks},
    }
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    (folder / "state.json").write_text(json.dumps({**state, "sha256": digest}, indent=2), encoding="utf-8")

    every, best, last = max(1, steps // evaluations), {"step": 0, "overall": -1.0}, {}
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as log:
        for step in range(1, steps + 1):
            done = step / steps
            stage = stages[min(int(done * len(stages)), len(stages) - 1)]
            noise = generator.lognormal(0, 0.25, len(tasks)).tolist()
            losses = {
                task.name: task.loss * (0.45 + 0.55 * math.exp(-5 * done)) * factor
                for task, factor in zip(tasks, noise, strict=True)
            }
            record = {
                "kind": "step",
                "stage": stage,
                "step": step,
                "epoch": 0,
                "losses": losses,
                "lr": 1e-5 * (1 - done),
            }
            record["grad_norm"] = generator.lognormal(0.5, 0.4)
            if len(tasks) > 1 and step % 5 == 0:
                record["grad_norms"] = {task.name: generator.lognormal(0, 0.4) for task in tasks}
                product = np.clip(generator.normal(0.1, 0.2, (len(tasks), len(tasks))), -1, 1)
                record["cosines"] = np.where(np.eye(len(tasks)) > 0, 1.0, (product + product.T) / 2).tolist()
            log.write(json.dumps(record) + "\n")
            if step % every == 0 or step == steps:
                skill = 1 - math.exp(-4 * done)
                predictions = {t.name: t.predict(generator, dev[t.name], t.skill * skill) for t in tasks}
                scores = {t.name: t.scores(predictions[t.name], dev[t.name]) for t in tasks}
                both = dict(zip(("overall", "overall_raw"), overall(scores, primary), strict=True))
                last = {"step": step, "stage": stage, "tasks": scores, "predictions": predictions, **both}
                best = max(best, last, key=lambda each: each["overall"])
                record = {"kind": "eval", "stage": stage, "step": step, "split": "dev", "tasks": scores, **both}
                log.write(json.dumps(record) + "\n")
    if not finished:
        return folder

    baseline = {t.name: t.scores(majority_baseline(t.kind, dev[t.name], dev[t.name]), dev[t.name]) for t in tasks}
    summary = {
        "name": folder.name,
        "seed": seed,
        "status": "finished",
        "dev": {name: best[name] for name in ("tasks", "overall", "overall_raw")},
        "baseline": {"tasks": baseline},
        "best": {"stage": best["stage"], "step": best["step"]},
        "seconds": 4521.7,
        "examples": {task.name: steps * 8 for task in tasks},
        "tokens": steps * 8 * 30,
        "primary": primary,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    for task in tasks:
        write_predictions(folder, task, dev[task.name], best["predictions"][task.name])
    return folder


def write_predictions(folder: Path, task: FakeTask, targets: np.ndarray, predictions: np.ndarray) -> None:
    """Write the dev predictions of a task; probabilities are surer than they are right."""
    generator = np.random.default_rng(len(targets))
    cells, rows = list(task.labels or ()), len(targets)
    texts = [sentences(generator, rows) for _ in task.columns]
    sure = generator.beta(6, 2, rows)
    with (folder / "predictions" / f"{task.name}.dev.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        names = [f"probability_{name}" for name in (task.labels or {}).values()]
        extra = ["label", *names] if task.labels else []
        writer.writerow(["id", "target", *task.columns, "prediction", *extra, "truncated"])
        for index, (target, guess) in enumerate(zip(targets.tolist(), predictions.tolist(), strict=True)):
            own = [column[index] for column in texts]
            if task.labels is None:
                writer.writerow([index, target, *own, guess, int(index % 97 == 0)])
                continue
            top = max(sure[index], 1.01 / len(cells))
            shares = [round((1 - top) / (len(cells) - 1), 6)] * len(cells)
            shares[guess] = round(top, 6)
            writer.writerow([index, cells[target], *own, cells[guess], task.labels[cells[guess]], *shares, 0])
