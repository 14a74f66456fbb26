"""`Model`: a trained model, ready to predict."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray

from manyhead.data.tokens import ExampleTokenizer, TokenStore, tokenized
from manyhead.device import choose_hardware
from manyhead.errors import UsageError
from manyhead.inference.ahead import ahead
from manyhead.inference.frozen import FrozenModel, freeze_for_inference
from manyhead.inference.model_folder import StoredModel, read_model
from manyhead.inference.outputs import BLOCK_EXAMPLES, Floats, Read, TaskPredictions, Tick, read_outputs, run_blocks
from manyhead.model import build_objective
from manyhead.recipe.schema import Cell, Task

Texts = Iterable[str] | Iterable[Sequence[str]]

STREAM_ROWS = 4096
"""Texts of a stream that are taken and predicted together."""


@dataclass(frozen=True)
class Encoding:
    """One way of encoding texts: the ``tasks`` that read it, whether pairs are two sequences, whose experts read."""

    tasks: tuple[str, ...]
    siamese: bool
    task: str


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

    def predict(self, task: str, texts: Texts, *, tick: Tick | None = None) -> list[Prediction]:
        """One prediction for each text, or for each pair where the task reads two; see `predict_tasks`."""
        return self._readable(task, *self.predict_arrays(task, texts, tick=tick))

    def predict_all(self, texts: Texts, *, tick: Tick | None = None) -> dict[str, list[Prediction]]:
        """The predictions of every task that reads as many texts as given; see `predict_tasks`."""
        rows = _rows(texts)
        if not rows:
            return {}
        found = self.predict_tasks(self._fitting(rows), rows, tick=tick)
        return {name: self._readable(name, *arrays) for name, arrays in found.items()}

    @overload
    def predict_stream(self, task: str, texts: Texts, *, tick: Tick | None = None) -> Iterator[Prediction]: ...

    @overload
    def predict_stream(
        self, task: list[str] | tuple[str, ...] | None, texts: Texts, *, tick: Tick | None = None
    ) -> Iterator[dict[str, Prediction]]: ...

    def predict_stream(
        self, task: str | list[str] | tuple[str, ...] | None, texts: Texts, *, tick: Tick | None = None
    ) -> Iterator[Prediction] | Iterator[dict[str, Prediction]]:
        """Predictions one by one, in order, in memory that does not grow; ``texts`` may be without end.

        `STREAM_ROWS` texts are taken and predicted at a time. Of several tasks, or with None of all that read as many
        texts as the first ones, there is a prediction of each task for each text.
        """
        if isinstance(task, str):
            self._task(task)
            return (each[task] for each in self._stream([task], _checked(texts), tick))
        for name in task or ():
            self._task(name)
        return self._stream(task, _checked(texts), tick)

    def predict_arrays(
        self, task: str, texts: Texts, *, tick: Tick | None = None
    ) -> tuple[TaskPredictions, NDArray[np.bool_]]:
        """Predictions as arrays, and whether each text was truncated (E,)."""
        return self.predict_tasks([task], texts, tick=tick)[task]

    def predict_tasks(
        self, tasks: Sequence[str], texts: Texts, *, tick: Tick | None = None
    ) -> dict[str, tuple[TaskPredictions, NDArray[np.bool_]]]:
        """Predictions of several tasks as arrays, and whether each text was truncated (E,).

        Tasks that read the same sequences do so from one encoding; in a model with experts each task has its own.
        ``tick`` is told how many of the texts are done since it was last called. Several threads may call at once.
        Raises `UsageError` for a task that does not exist, and for texts that are no texts or too few for a task.
        """
        rows = _rows(texts)
        encodings = self.encodings(tasks)
        self._check_rows(tasks, rows)
        shared = _shared(tick, len(encodings))
        found: dict[str, tuple[TaskPredictions, NDArray[np.bool_]]] = {}
        for encoding in encodings:
            # A block of rows is tokenised while the model runs the one before.
            blocks = (
                self.tokenized(encoding, rows[start : start + BLOCK_EXAMPLES])
                for start in range(0, len(rows), BLOCK_EXAMPLES)
            )
            found |= self.predict_tokens(encoding, ahead(blocks), tick=shared)
        return {name: found[name] for name in tasks}

    def embed(self, texts: Iterable[str], task: str | None = None, *, tick: Tick | None = None) -> NDArray[np.float32]:
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
        encoding = Encoding((), False, task or "")
        blocks = (
            self.tokenized(encoding, rows[start : start + BLOCK_EXAMPLES])
            for start in range(0, len(rows), BLOCK_EXAMPLES)
        )
        return self._run(encoding, ahead(blocks), lambda vectors: vectors.flatten(1), self._model.width, tick)[0]

    def encodings(self, tasks: Sequence[str]) -> list[Encoding]:
        """The ways in which texts have to be encoded for ``tasks``. Raises `UsageError` for one that does not exist."""
        found: dict[tuple[bool, str], list[str]] = {}
        for name in dict.fromkeys(tasks):
            siamese = self._task(name).sequences_per_example == 2
            found.setdefault((siamese, name if self._model.routed else ""), []).append(name)
        return [Encoding(tuple(names), siamese, task) for (siamese, task), names in found.items()]

    def tokenized(self, encoding: Encoding, rows: Sequence[tuple[str, ...]]) -> TokenStore:
        """The tokens of rows that the tasks of ``encoding`` can read."""
        tokenize = self._tokenizers.get(encoding.siamese)
        if tokenize is None:
            most = self.recipe.encoder.max_tokens
            tokenize = ExampleTokenizer(self._tokenizer, max_tokens=most, siamese=encoding.siamese)
            self._tokenizers[encoding.siamese] = tokenize
        return tokenized(tokenize, rows)

    def predict_tokens(
        self, encoding: Encoding, blocks: Iterable[TokenStore], *, tick: Tick | None = None
    ) -> dict[str, tuple[TaskPredictions, NDArray[np.bool_]]]:
        """What the tasks of ``encoding`` predict for the rows that it `tokenized`: as `predict_tasks`."""
        heads = [self._model.head(name) for name in encoding.tasks]
        widths = [self.objectives[name].outputs for name in encoding.tasks]
        outputs, truncated = self._run(
            encoding, blocks, lambda vectors: torch.cat([head(vectors) for head in heads], 1), sum(widths), tick
        )
        own = np.split(outputs, np.cumsum(widths)[:-1], axis=1)
        return {
            name: (read_outputs(self._model, name, self.objectives[name], each), truncated)
            for name, each in zip(encoding.tasks, own, strict=True)
        }

    def _run(
        self, encoding: Encoding, blocks: Iterable[TokenStore], read: Read, width: int, tick: Tick | None
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """What ``read`` makes of each row's vectors, (E, ``width``), and whether it was truncated (E,)."""
        truncated = [np.empty(0, bool)]

        def passing() -> Iterator[TokenStore]:
            for block in blocks:
                truncated.append(block.truncated)
                yield block

        segments = self.recipe.encoder.segment_ids
        found = run_blocks(self.frozen, passing(), read, width, task=encoding.task, segment_ids=segments, tick=tick)
        return found, np.concatenate(truncated)

    def _stream(
        self, tasks: Sequence[str] | None, texts: Iterable[object], tick: Tick | None
    ) -> Iterator[dict[str, Prediction]]:
        each, first = iter(texts), 0
        while rows := _rows(list(islice(each, STREAM_ROWS)), first):
            tasks = self._fitting(rows[:1], first) if tasks is None else tasks
            self._check_rows(tasks, rows, first)
            found = self.predict_tasks(tasks, rows, tick=tick)
            readable = {name: self._readable(name, *arrays) for name, arrays in found.items()}
            yield from (dict(zip(readable, one, strict=True)) for one in zip(*readable.values(), strict=True))
            first += len(rows)

    def _fitting(self, rows: Sequence[tuple[str, ...]], first: int = 0) -> list[str]:
        """The tasks that read as many texts as the rows, which all have as many as the first."""
        width = len(rows[0])
        _check_widths(rows, width, first)
        fitting = [name for name, task in self.tasks.items() if len(task.text) == width]
        if not fitting:
            raise UsageError(f"no task of this model reads {width} texts; expected {self._widths()}")
        return fitting

    def _check_rows(self, tasks: Iterable[str], rows: Sequence[tuple[str, ...]], first: int = 0) -> None:
        for name in tasks:
            declared = self._task(name)
            for number, row in enumerate(rows, first):
                if len(row) != len(declared.text):
                    raise UsageError(
                        f"text {number}: {len(row)} texts for task '{name}'; expected "
                        f"{'a pair of texts' if declared.is_pair else 'one text'} ({', '.join(declared.text)})"
                    )

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


def _checked(texts: object) -> Iterable[object]:
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        raise UsageError(f"texts is {texts!r}; expected a list of texts: put it in a list")
    return cast("Iterable[object]", texts)


def _rows(texts: Iterable[object], first: int = 0) -> list[tuple[str, ...]]:
    """The texts of each row, the first of which has the number ``first``. Raises `UsageError` for what is no text."""
    rows: list[tuple[str, ...]] = []
    for number, item in enumerate(_checked(texts), first):
        row = (item,) if isinstance(item, str) else item
        if not isinstance(row, list | tuple) or not all(isinstance(text, str) for text in row):
            raise UsageError(f"text {number} is not text but {item!r}; expected a text or a pair of texts")
        rows.append(cast("tuple[str, ...]", tuple(row)))
    return rows


def _check_widths(rows: Sequence[tuple[str, ...]], width: int, first: int = 0) -> None:
    for number, row in enumerate(rows, first):
        if len(row) != width:
            raise UsageError(f"text {number}: {len(row)} texts; expected {width}, as many as in each of the others")


def _shared(tick: Tick | None, encodings: int) -> Tick | None:
    """``tick`` where each text is encoded several times, and done when all of them are."""
    if tick is None or encodings == 1:
        return tick
    done = told = 0

    def share(examples: int) -> None:
        nonlocal done, told
        done += examples
        if done // encodings > told:
            tick(done // encodings - told)
            told = done // encodings

    return share


def _folder_of(path_or_id: str | Path) -> Path:
    path = Path(path_or_id)
    if path.exists() or isinstance(path_or_id, Path):
        return path
    from manyhead.encoder.source import locate_encoder

    return locate_encoder(str(path_or_id), None).folder
