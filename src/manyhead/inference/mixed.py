"""Several questions at once: texts for different tasks, or for vectors, read from one encoding of each text.

A pair that a siamese task reads is two single texts, so it shares their encoding with whatever else asks for them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manyhead.data.tokens import ExampleTokenizer, TokenChunk, TokenStore
from manyhead.inference.outputs import Floats, TaskPredictions, read_outputs, run_blocks
from manyhead.inference.predictor import Model

Row = tuple[str, ...]
"""A text, or a pair of them."""


@dataclass(frozen=True)
class Question:
    """E rows, all of one text or all of two, and what is asked of them: what ``tasks`` predict, or their vectors.

    ``vectors_of`` is the task whose vectors are wanted; "" where they are the same for all tasks.
    """

    rows: Sequence[Row]
    tasks: tuple[str, ...] = ()
    vectors_of: str | None = None


@dataclass(frozen=True)
class Reply:
    """What was found for E rows: by task its predictions, or vectors (E, D).

    ``truncated``: by task whether each row was cut for its length (E,); of vectors under "".
    """

    predictions: dict[str, TaskPredictions]
    vectors: Floats | None
    truncated: dict[str, NDArray[np.bool_]]

    @classmethod
    def joined(cls, replies: Sequence[Self]) -> Self:
        """The replies to parts of a question, in the order of its rows."""
        first = replies[0]
        predictions = {name: _predictions([each.predictions[name] for each in replies]) for name in first.predictions}
        vectors = [each.vectors for each in replies if each.vectors is not None]
        truncated = {name: np.concatenate([each.truncated[name] for each in replies]) for name in first.truncated}
        return cls(predictions, np.concatenate(vectors) if vectors else None, truncated)


class MixedReader:
    """Answers several questions by one pass of ``model`` over their texts, each of which is encoded once.

    On the CPU the answers have the bits of `Model.predict_arrays` and `Model.embed`. Not to be shared by threads.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._tokenize = ExampleTokenizer(model.tokenizer, max_tokens=model.recipe.encoder.max_tokens, siamese=False)

    def __call__(self, questions: Sequence[Question]) -> list[Reply]:
        """A reply to each of the questions."""
        numbers: dict[Row, int] = {}
        wanted: dict[str, dict[int, None]] = {}
        for question in questions:
            for route, siamese in self._ways(question):
                found = (numbers.setdefault(each, len(numbers)) for each in _sequences(question.rows, siamese))
                wanted.setdefault(route, {}).update(dict.fromkeys(found))
        store = self._tokens(list(numbers))
        vectors = {route: self._vectors(route, store, list(some)) for route, some in wanted.items()}
        return [self._reply(question, numbers, vectors, store.truncated) for question in questions]

    def _ways(self, question: Question) -> list[tuple[str, bool]]:
        """How the question's rows are read: by whose experts ("" where there are none), and each side by itself."""
        if question.vectors_of is not None:
            return [(self._route(question.vectors_of), False)]
        tasks = self._model.tasks
        ways = [(self._route(name), tasks[name].sequences_per_example == 2) for name in question.tasks]
        return list(dict.fromkeys(ways))

    def _route(self, task: str) -> str:
        return task if self._model.network.routed else ""

    def _tokens(self, rows: Sequence[Row]) -> TokenStore:
        """The tokens of each of the rows as one sequence."""
        places: list[int] = []
        chunks: list[TokenChunk] = []
        for width in (1, 2):
            some = [number for number, row in enumerate(rows) if len(row) == width]
            if some:
                places += some
                chunks.append(self._tokenize.batch([rows[number] for number in some]))
        store = _joined(chunks, self._tokenize.dtype)
        order = np.empty(len(places), np.int64)
        order[places] = np.arange(len(places))
        return store.take(order)

    def _vectors(self, route: str, store: TokenStore, numbers: Sequence[int]) -> Tensor:
        """The vectors (S, D) of all sequences of ``store``; only those of ``numbers`` hold anything."""
        some = np.array(numbers, np.int64)
        width = self._model.network.width
        found = np.empty((store.n_examples, width), np.float32)
        segments = self._model.recipe.encoder.segment_ids
        found[some] = run_blocks(
            self._model.frozen,
            [store.take(some)],
            lambda each: each.flatten(1),
            width,
            task=route,
            segment_ids=segments,
        )
        return torch.from_numpy(found).to(self._model.frozen.device)

    def _reply(
        self,
        question: Question,
        numbers: Mapping[Row, int],
        vectors: Mapping[str, Tensor],
        truncated: NDArray[np.bool_],
    ) -> Reply:
        places = {
            siamese: np.array([numbers[each] for each in _sequences(question.rows, siamese)], np.int64)
            for siamese in {siamese for _, siamese in self._ways(question)}
        }
        cut = {way: truncated[found].reshape(len(question.rows), -1).any(1) for way, found in places.items()}
        if question.vectors_of is not None:
            rows = vectors[self._route(question.vectors_of)][torch.from_numpy(places[False])]
            return Reply({}, rows.cpu().numpy(), {"": cut[False]})
        siamese = {name: self._model.tasks[name].sequences_per_example == 2 for name in question.tasks}
        predictions = {
            name: self._predict(name, vectors[self._route(name)], places[way]) for name, way in siamese.items()
        }
        return Reply(predictions, None, {name: cut[way] for name, way in siamese.items()})

    def _predict(self, task: str, vectors: Tensor, places: NDArray[np.int64]) -> TaskPredictions:
        n = self._model.tasks[task].sequences_per_example
        with self._model.frozen.running():
            read = vectors[torch.from_numpy(places)].unflatten(0, (-1, n))
            outputs = self._model.network.head(task)(read).float().cpu().numpy()
        return read_outputs(self._model.network, task, self._model.objectives[task], outputs)


def _sequences(rows: Sequence[Row], siamese: bool) -> Iterable[Row]:
    """The rows as the encoder reads them: with ``siamese`` each side by itself."""
    return ((text,) for row in rows for text in row) if siamese else rows


def _joined(chunks: Sequence[TokenChunk], dtype: type[np.uint16] | type[np.uint32]) -> TokenStore:
    lengths = np.concatenate([np.zeros(1, np.int64), *(chunk.lengths for chunk in chunks)])
    return TokenStore(
        ids=cast("NDArray[np.uint16]", np.concatenate([np.empty(0, dtype), *(chunk.ids for chunk in chunks)])),
        offsets=lengths.cumsum(),
        segment_starts=np.concatenate([np.empty(0, np.int32), *(chunk.segment_starts for chunk in chunks)]),
        truncated=np.concatenate([np.empty(0, bool), *(chunk.truncated for chunk in chunks)]),
        sequences_per_example=1,
    )


def _predictions(parts: Sequence[TaskPredictions]) -> TaskPredictions:
    def end_to_end(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else np.concatenate(found)

    return TaskPredictions(*(end_to_end(name) for name in ("probabilities", "scores", "classes")))
