"""`Served`: a model as it is served, with what is told of it. A reload makes another one."""

import csv
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from manyhead.data.delimited import FIELD_CHARS
from manyhead.data.tokens import ExampleTokenizer
from manyhead.errors import ManyheadError
from manyhead.evaluation.predictions import text_columns
from manyhead.evidence.predictions import predictions_path
from manyhead.files import MANIFEST, sha256_of
from manyhead.inference.mixed import MixedReader, Question, Row
from manyhead.inference.model_folder import model_in
from manyhead.inference.predictor import Model
from manyhead.recipe.schema import Task, cell_text

EXAMPLES = 20
"""Dev rows that are shown of a task."""


@dataclass(frozen=True)
class Served:
    """A model, and what ``/v1/tasks`` and ``/v1/examples`` tell of it.

    ``reader`` and ``cutter`` are for one thread each.
    """

    model: Model
    reader: MixedReader
    cutter: ExampleTokenizer
    model_id: str
    facts: list[dict[str, Any]]
    examples: Mapping[str, list[dict[str, Any]]]

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks by name."""
        return self.model.tasks

    def fitting(self, width: int) -> tuple[str, ...]:
        """Names of the tasks that read ``width`` texts at once."""
        return tuple(name for name, task in self.tasks.items() if len(task.text) == width)

    def cut(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with only so much of very long texts as the encoder can read; they are predicted as before."""
        return [tuple([self.cutter.cut(text) for text in row]) for row in rows]


def serve_model(folder: Path, load: Callable[[], Model]) -> Served:
    """Loads the model of ``folder``, runs it once, and reads what a run's folder tells of it.

    Raises `CheckpointError` where it is damaged or missing.
    """
    model = load()
    reader = MixedReader(model)
    _try_out(model, reader)
    summary = _summary(folder)
    facts = [_facts(name, task, summary) for name, task in model.tasks.items()]
    examples = {name: _examples(folder, name, task) for name, task in model.tasks.items()}
    cutter = ExampleTokenizer(model.tokenizer, max_tokens=model.recipe.encoder.max_tokens, siamese=False)
    return Served(model, reader, cutter, _model_id(folder), facts, examples)


def _try_out(model: Model, reader: MixedReader) -> None:
    """Runs every head once, so that the first request waits for nothing."""
    for name, task in model.tasks.items():
        question = Question([("a",) * len(task.text)], (name,))
        reader.reply(question, reader.encode([question]))


def _model_id(folder: Path) -> str:
    """The sha256 of the manifest, which holds the sums of the model's files."""
    for place in (model_in(folder), folder / "best"):
        if (place / MANIFEST).is_file():
            return sha256_of(place / MANIFEST)
    return hashlib.sha256(str(folder).encode()).hexdigest()


def _summary(folder: Path) -> dict[str, Any]:
    """A finished run's summary; empty where there is none that can be read."""
    try:
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _facts(name: str, task: Task, summary: Mapping[str, Any]) -> dict[str, Any]:
    score = summary.get("dev", {}).get("tasks", {}).get(name, {}).get(task.metric)
    interval = summary.get("intervals", {}).get(name, {})
    low, high = interval.get("low"), interval.get("high")
    return {
        "name": name,
        "kind": task.kind,
        "texts": list(task.text),
        "labels": list(task.label_names) if task.kind == "classification" else None,
        "range": None if task.range is None else list(task.range),
        "metric": task.metric,
        "score": score,
        "interval": None if low is None or high is None else [low, high],
    }


def _examples(folder: Path, name: str, task: Task) -> list[dict[str, Any]]:
    """The first dev rows that the run keeps with their predictions, none where it keeps no texts."""
    try:
        csv.field_size_limit(FIELD_CHARS)
        with predictions_path(folder, name).open(encoding="utf-8", newline="") as file:
            rows = list(itertools.islice(csv.DictReader(file, strict=True), EXAMPLES))
        return [
            {"texts": [row[column] for column in text_columns(task)], "target": _target(task, row["target"])}
            for row in rows
        ]
    except (OSError, ValueError, KeyError, csv.Error, ManyheadError):
        return []


def _target(task: Task, cell: str) -> str | float:
    """A dev row's label by name, or its score."""
    if task.kind == "regression":
        return float(cell)
    names = {cell_text(each): name for each, name in zip(task.label_cells, task.label_names, strict=True)}
    return names.get(cell, cell)


def readable(task: Task, values: Sequence[Any], probabilities: Any, truncated: Sequence[bool]) -> list[dict[str, Any]]:
    """Predictions of one task as JSON has them; see `manyhead.inference.predictor.Prediction`."""
    if probabilities is None:
        return [
            {"value": score, "label": None, "probabilities": None, "score": score, "truncated": cut}
            for score, cut in zip(cast("Sequence[float]", values), truncated, strict=True)
        ]
    labels, cells = task.label_names, task.label_cells
    return [
        {
            "value": cells[best],
            "label": labels[best],
            "probabilities": dict(zip(labels, row, strict=True)),
            "score": None,
            "truncated": cut,
        }
        for best, row, cut in zip(values, probabilities, truncated, strict=True)
    ]
