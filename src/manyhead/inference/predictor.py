"""`Model`: a trained model, ready to predict."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray

from manyhead.data.tokens import ExampleTokenizer, TokenStore, tokenized
from manyhead.device import choose_hardware
from manyhead.errors import UsageError
from manyhead.inference.ahead import ahead
from manyhead.inference.frozen import FrozenModel, freeze_for_inference
from manyhead.inference.model_folder import StoredModel, read_model
from manyhead.inference.outputs import BLOCK_EXAMPLES, Floats, Read, TaskPredictions, read_outputs, run_blocks
from manyhead.model import build_objective
from manyhead.recipe.schema import Cell, Task

Texts = Sequence[str] | Sequence[Sequence[str]]


@dataclass(frozen=True)
class Prediction:
    """What is predicted for one example.

    ``value`` is the cell that the target column would hold: a label's cell, or the score. ``label`` and
    ``probabilities`` by label are of classes, ``score`` of regression; the others are None. ``truncated``: the text was
    longer than the model reads.
    """

    value: Cell
    label: str | None
    probabilities: dict[str, float] | None
    score: float | None
    truncated: bool


class Model:
    """A trained multi-task model. Make one with `Model.load`."""

    def __init__(self, stored: StoredModel, *, device: str, precision: str, threads: int | None) -> None:
        self.recipe = stored.recipe
        self.hardware = choose_hardware(device, precision, threads)
        self._model = stored.model.to(self.hardware.device)
        self._tokenizer = stored.tokenizer
        self._tokenizers: dict[bool, ExampleTokenizer] = {}
        self.objectives = {name: build_objective(task, stored.tables) for name, task in self.recipe.tasks.items()}
        self._model.autocast = self.hardware.autocast
        self.frozen = FrozenModel(self._model, int8=self.hardware.precision == "int8")
        freeze_for_inference(self._model, self.hardware.autocast)

    @classmethod
    def load(
        cls,
        path_or_id: str | Path,
        *,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        plugins: Sequence[str] = (),
    ) -> Self:
        """The model of a run folder, a model folder or a hub id.

        ``device`` and ``precision`` default to the recipe's; ``precision`` may be "int8" as well, on a CPU. Raises
        `CheckpointError` for a damaged or missing model.
        """
        stored = read_model(_folder_of(path_or_id), plugins=plugins)
        return cls(
            stored,
            device=device or stored.recipe.device,
            precision=precision or stored.recipe.precision,
            threads=threads or stored.recipe.threads,
        )

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks by name."""
        return self.recipe.tasks

    @property
    def network(self) -> Any:
        """The torch module."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """The tokenizers.Tokenizer."""
        return self._tokenizer

    def predict(self, task: str, texts: Texts) -> list[Prediction]:
        """One prediction for each text, or for each pair where the task reads two."""
        return self._readable(task, *self.predict_arrays(task, texts))

    def predict_all(self, texts: Texts) -> dict[str, list[Prediction]]:
        """The predictions of every task that reads as many texts as given.

        All come from one encoding of each text, but for a model with experts: there each task reads with its own.
        """
        rows = _rows(texts)
        if not rows:
            return {}
        width = len(rows[0])
        _check_widths(rows, width)
        fitting = [name for name, task in self.tasks.items() if len(task.text) == width]
        if not fitting:
            raise UsageError(f"no task of this model reads {width} texts; expected {self._widths()}")
        if self._model.routed:
            return {name: self.predict(name, rows) for name in fitting}
        found: dict[str, list[Prediction]] = {}
        for siamese in (False, True):
            names = [name for name in fitting if (self.tasks[name].sequences_per_example == 2) == siamese]
            if not names:
                continue
            heads = [self._model.head(name) for name in names]
            widths = [self.objectives[name].outputs for name in names]
            outputs, truncated = self._run(
                rows, lambda vectors, heads=heads: torch.cat([head(vectors) for head in heads], 1), sum(widths), siamese
            )
            for name, own in zip(names, np.split(outputs, np.cumsum(widths)[:-1], axis=1), strict=True):
                predictions = read_outputs(self._model, name, self.objectives[name], own)
                found[name] = self._readable(name, predictions, truncated)
        return {name: found[name] for name in fitting}

    def predict_arrays(self, task: str, texts: Texts) -> tuple[TaskPredictions, NDArray[np.bool_]]:
        """Predictions as arrays, and whether each text was truncated (E,)."""
        declared = self._task(task)
        rows = _rows(texts)
        for number, row in enumerate(rows):
            if len(row) != len(declared.text):
                raise UsageError(
                    f"text {number}: {len(row)} texts for task '{task}'; expected "
                    f"{'a pair of texts' if declared.is_pair else 'one text'} ({', '.join(declared.text)})"
                )
        objective, siamese = self.objectives[task], declared.sequences_per_example == 2
        outputs, truncated = self._run(rows, self._model.head(task), objective.outputs, siamese, task)
        return read_outputs(self._model, task, objective, outputs), truncated

    def embed(self, texts: Sequence[str], task: str | None = None) -> NDArray[np.float32]:
        """Pooled vectors (n, D) of single texts, as the heads see them.

        A model with experts has other vectors for each ``task``. Raises `UsageError` where it is not named.
        """
        if task is not None:
            self._task(task)
        elif self._model.routed:
            raise UsageError(
                f"embed needs a task, since this model's encoder has experts; expected one of {', '.join(self.tasks)}; "
                "write embed(texts, task=NAME)"
            )
        rows = _rows(texts)
        _check_widths(rows, 1)
        return self._run(rows, lambda vectors: vectors.flatten(1), self._model.width, False, task or "")[0]

    def _run(
        self, rows: Sequence[tuple[str, ...]], read: Read, width: int, siamese: bool, task: str = ""
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """What ``read`` makes of each row's vectors, (E, ``width``), and whether it was truncated (E,).

        A block of rows is tokenised while the model runs the one before.
        """
        tokenize = self._tokenizers.get(siamese)
        if tokenize is None:
            most = self.recipe.encoder.max_tokens
            tokenize = ExampleTokenizer(self._tokenizer, max_tokens=most, siamese=siamese)
            self._tokenizers[siamese] = tokenize
        truncated = [np.empty(0, bool)]

        def blocks() -> Iterator[TokenStore]:
            for start in range(0, len(rows), BLOCK_EXAMPLES):
                store = tokenized(tokenize, rows[start : start + BLOCK_EXAMPLES])
                truncated.append(store.truncated)
                yield store

        segments = self.recipe.encoder.segment_ids
        found = run_blocks(self.frozen, ahead(blocks()), read, width, task=task, segment_ids=segments)
        return found, np.concatenate(truncated)

    def _readable(self, name: str, found: TaskPredictions, truncated: NDArray[np.bool_]) -> list[Prediction]:
        task = self._task(name)
        if found.probabilities is None:
            scores = cast("list[float]", found.values.tolist())
            return [
                Prediction(score, None, None, score, bool(cut)) for score, cut in zip(scores, truncated, strict=True)
            ]
        labels, cells = task.label_names, task.label_cells
        return [
            Prediction(cells[best], labels[best], dict(zip(labels, row, strict=True)), None, bool(cut))
            for best, row, cut in zip(found.values, found.probabilities.tolist(), truncated, strict=True)
        ]

    def _task(self, name: str) -> Task:
        if name not in self.tasks:
            raise UsageError(f"no task '{name}' in this model; expected one of {', '.join(self.tasks)}")
        return self.tasks[name]

    def _widths(self) -> str:
        return " or ".join(sorted({str(len(task.text)) for task in self.tasks.values()}))


def _rows(texts: Texts) -> list[tuple[str, ...]]:
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise UsageError(f"texts is {texts!r}; expected a list of texts: put it in a list")
    rows: list[tuple[str, ...]] = []
    for number, item in enumerate(cast("Sequence[object]", texts)):
        row = (item,) if isinstance(item, str) else item
        if not isinstance(row, list | tuple) or not all(isinstance(text, str) for text in row):
            raise UsageError(f"text {number} is not text but {item!r}; expected a text or a pair of texts")
        rows.append(cast("tuple[str, ...]", tuple(row)))
    return rows


def _check_widths(rows: Sequence[tuple[str, ...]], width: int) -> None:
    for number, row in enumerate(rows):
        if len(row) != width:
            raise UsageError(f"text {number}: {len(row)} texts; expected {width}, as many as in each of the others")


def _folder_of(path_or_id: str | Path) -> Path:
    path = Path(path_or_id)
    if path.exists() or isinstance(path_or_id, Path):
        return path
    from manyhead.encoder.source import locate_encoder

    return locate_encoder(str(path_or_id), None).folder
