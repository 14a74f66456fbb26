"""Several questions at once: texts for different tasks, or for vectors, read from one encoding of each text.

A pair that a siamese task reads is two single texts, so it shares their encoding with whatever else asks for them.
Encoding comes first, for all questions together; heads then read each question by itself, with the rows that
`Model.predict_arrays` would give them. The encoder's vectors do not depend on a text's company, but the last bits of a
head's products and of a softmax depend on how many rows there are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manyhead.data.tokens import ExampleTokenizer, TokenChunk, TokenStore
from manyhead.inference.outputs import BLOCK_EXAMPLES, Floats, TaskPredictions, read_outputs, run_blocks
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


class Way(NamedTuple):
    """How rows are read: by whose experts ("" where there are none), and whether each side by itself."""

    route: str
    siamese: bool


@dataclass(frozen=True)
class Encoded:
    """E rows, encoded: ``vectors`` (E, n, D), a key of each row's tokens, and whether it was cut (E,)."""

    vectors: Tensor
    keys: list[bytes]
    truncated: NDArray[np.bool_]


class MixedReader:
    """Answers questions on ``model`` with one encoding of each text. Not to be shared by threads.

    On the CPU the answers have the bits of `Model.predict_arrays` and `Model.embed`.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._tokenize = ExampleTokenizer(model.tokenizer, max_tokens=model.recipe.encoder.max_tokens, siamese=False)

    def encode(self, questions: Sequence[Question]) -> list[dict[Way, Encoded]]:
        """The rows of each question, encoded in all ways that it needs: the first of two steps."""
        numbers: dict[Row, int] = {}
        wanted: dict[str, dict[int, None]] = {}
        for question in questions:
            for way in self._ways(question):
                found = (numbers.setdefault(each, len(numbers)) for each in _sequences(question.rows, way))
                wanted.setdefault(way.route, {}).update(dict.fromkeys(found))
        store = self._tokens(list(numbers))
        vectors = {route: self._vectors(route, store, list(some)) for route, some in wanted.items()}
        return [
            {way: _encoded(question.rows, way, numbers, store, vectors[way.route]) for way in self._ways(question)}
            for question in questions
        ]

    def reply(self, question: Question, parts: Sequence[Mapping[Way, Encoded]]) -> Reply:
        """The answer to a question whose rows were encoded in ``parts``, in order: the second step."""
        whole = {way: _joined([part[way] for part in parts]) for way in self._ways(question)}
        if question.vectors_of is not None:
            (found,) = whole.values()
            return Reply({}, found.vectors.flatten(1).cpu().numpy(), {"": found.truncated})
        own = {name: whole[self._way(name)] for name in question.tasks}
        predictions = {name: self._predict(name, each) for name, each in own.items()}
        return Reply(predictions, None, {name: each.truncated for name, each in own.items()})

    def _ways(self, question: Question) -> list[Way]:
        if question.vectors_of is not None:
            return [Way(self._route(question.vectors_of), siamese=False)]
        return list(dict.fromkeys(self._way(name) for name in question.tasks))

    def _way(self, task: str) -> Way:
        return Way(self._route(task), siamese=self._model.tasks[task].sequences_per_example == 2)

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
        lengths = np.concatenate([np.zeros(1, np.int64), *(chunk.lengths for chunk in chunks)])
        store = TokenStore(
            ids=cast("NDArray[np.uint16]", np.concatenate([chunk.ids for chunk in chunks])),
            offsets=lengths.cumsum(),
            segment_starts=np.concatenate([chunk.segment_starts for chunk in chunks]),
            truncated=np.concatenate([chunk.truncated for chunk in chunks]),
            sequences_per_example=1,
        )
        order = np.empty(len(places), np.int64)
        order[places] = np.arange(len(places))
        return store.take(order)

    def _vectors(self, route: str, store: TokenStore, numbers: Sequence[int]) -> Tensor:
        """The vectors (S, D) of all sequences of ``store``; only those of ``numbers`` hold anything."""
        some, width = np.array(numbers, np.int64), self._model.network.width
        found = np.empty((store.n_examples, width), np.float32)
        found[some] = run_blocks(
            self._model.frozen,
            [store.take(some)],
            lambda each: each.flatten(1),
            width,
            task=route,
            segment_ids=self._model.recipe.encoder.segment_ids,
        )
        return torch.from_numpy(found).to(self._model.frozen.device)

    def _predict(self, task: str, rows: Encoded) -> TaskPredictions:
        """The head on all different rows, in blocks, as they meet in `run_blocks`."""
        head, known = self._model.network.head(task), dict[bytes, int]()
        outputs: list[Floats] = []
        places: list[int] = []
        with self._model.frozen.running():
            for start in range(0, len(rows.keys), BLOCK_EXAMPLES):
                fresh: list[int] = []
                for row in range(start, min(start + BLOCK_EXAMPLES, len(rows.keys))):
                    before = len(known)
                    places.append(known.setdefault(rows.keys[row], before))
                    if places[-1] == before:
                        fresh.append(row)
                if fresh:
                    outputs.append(head(rows.vectors[torch.tensor(fresh)]).float().cpu().numpy())
        found = np.concatenate(outputs)[np.array(places)]
        return read_outputs(self._model.network, task, self._model.objectives[task], found)


def _sequences(rows: Sequence[Row], way: Way) -> Iterable[Row]:
    """The rows as the encoder reads them."""
    return ((text,) for row in rows for text in row) if way.siamese else rows


def _encoded(rows: Sequence[Row], way: Way, numbers: Mapping[Row, int], store: TokenStore, vectors: Tensor) -> Encoded:
    places = np.array([numbers[each] for each in _sequences(rows, way)], np.int64).reshape(len(rows), -1)
    return Encoded(
        vectors[torch.from_numpy(places)],
        [b"|".join([_key(store, number) for number in row]) for row in places.tolist()],
        np.asarray(store.truncated[places].any(1)),
    )


def _key(store: TokenStore, number: int) -> bytes:
    """The same for sequences of the same tokens: their number, the second text's place, and themselves."""
    ids = store.sequence(number)
    return b"%d:%d:" % (len(ids), store.segment_starts[number]) + ids.tobytes()


def _joined(parts: Sequence[Encoded]) -> Encoded:
    if len(parts) == 1:
        return parts[0]
    return Encoded(
        torch.cat([part.vectors for part in parts]),
        [key for part in parts for key in part.keys],
        np.concatenate([part.truncated for part in parts]),
    )
