"""From tokens to predictions: length-aware packed batches through the model, and nothing twice.

Examples come in blocks of `BLOCK_EXAMPLES`. Equal examples are read once, wherever they are, so equal inputs have
equal outputs; within a block equal sequences are encoded once, as the questions that many siamese pairs share.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manyhead.batching import length_batches, pack
from manyhead.data.tokens import TokenStore
from manyhead.errors import UsageError
from manyhead.faults import at
from manyhead.inference.frozen import FrozenModel, frozen
from manyhead.model import MultiTaskModel
from manyhead.objectives.base import Objective, Predictions
from manyhead.schedules.base import Part

BLOCK_EXAMPLES = 8192
"""Examples whose batches are made of like lengths; their vectors are in memory together."""

Floats = NDArray[np.float32]

Tick = Callable[[int], None]
"""Told the examples that are done since it was last called."""

Read = Callable[[Tensor], Tensor]
"""From the vectors (E, n, D) of examples to outputs (E, O), as a head does."""


@dataclass(frozen=True)
class TaskPredictions:
    """Predictions of E examples in their order: ``probabilities`` (E, C), or ``scores`` (E,) for a score.

    ``classes`` (E,), if given, are the predicted ones where rounding may make others as probable.
    """

    probabilities: Floats | None
    scores: Floats | None
    classes: NDArray[np.int64] | None = None

    @property
    def values(self) -> NDArray[np.int64] | Floats:
        """The predicted class indices, or the scores: (E,)."""
        if self.classes is not None:
            return self.classes
        if self.probabilities is not None:
            return self.probabilities.argmax(1)
        assert self.scores is not None
        return self.scores

    @property
    def are_finite(self) -> bool:
        """Whether all of them are finite numbers."""
        return all(bool(np.isfinite(each).all()) for each in (self.probabilities, self.scores) if each is not None)


def predict_store(
    model: MultiTaskModel | FrozenModel,
    task: str,
    store: TokenStore,
    objective: Objective,
    *,
    segment_ids: bool = True,
    tick: Tick | None = None,
) -> TaskPredictions:
    """Predictions for every example of ``store``; ``tick`` is called after each batch.

    The model is in evaluation mode meanwhile; no random number is drawn.
    """
    ready = frozen(model)
    outputs = raw_outputs(ready, task, store, objective.outputs, segment_ids=segment_ids, tick=tick)
    return read_outputs(ready, task, objective, outputs)


def raw_outputs(
    model: MultiTaskModel | FrozenModel,
    task: str,
    store: TokenStore,
    width: int,
    *,
    segment_ids: bool = True,
    tick: Tick | None = None,
) -> Floats:
    """The outputs (E, O), O = ``width``, of the task's head for every example of ``store``; see `predict_store`."""
    ready = frozen(model)
    read = ready.model.head(task)
    return run_blocks(ready, blocks_of(store), read, width, task=task, segment_ids=segment_ids, tick=tick)


def blocks_of(store: TokenStore) -> Iterator[TokenStore]:
    """``store`` in blocks: views of it."""
    n = store.sequences_per_example
    for start in range(0, store.n_examples, BLOCK_EXAMPLES):
        stop = min(start + BLOCK_EXAMPLES, store.n_examples)
        yield TokenStore(
            store.ids,
            store.offsets[start * n : stop * n + 1],
            store.segment_starts[start * n : stop * n],
            store.truncated[start:stop],
            n,
        )


def run_blocks(
    model: FrozenModel,
    blocks: Iterable[TokenStore],
    read: Read,
    width: int,
    *,
    task: str = "",
    segment_ids: bool = True,
    tick: Tick | None = None,
) -> Floats:
    """What ``read`` makes of every example of all ``blocks``, in order: (E, O), O = ``width``.

    ``task`` says whose experts read the texts, where the model has some.
    """
    rows: dict[bytes, int] = {}
    outputs: list[Floats] = [np.empty((0, width), np.float32)]
    places: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    with model.running():
        for block in blocks:
            fresh, found = _unseen(block, rows)
            places.append(found)
            vectors = _vectors(model, task, block, fresh, segment_ids=segment_ids, tick=tick)
            if len(fresh):
                outputs.append(read(vectors).float().cpu().numpy())
    return np.concatenate(outputs)[np.concatenate(places)]


def read_outputs(
    model: MultiTaskModel | FrozenModel, task: str, objective: Objective, outputs: Floats
) -> TaskPredictions:
    """What the outputs (E, O) of a task's head predict, behind its threshold and at its temperature, if it has them.

    A temperature changes no class, also where rounding does.
    """
    network = model.model if isinstance(model, FrozenModel) else model
    threshold, temperature = network.threshold(task), network.temperatures.get(task)
    with torch.inference_mode():
        rows = torch.from_numpy(outputs).to(next(network.parameters()).device)
        rows = rows if threshold is None else rows - threshold
        found = as_arrays(objective.predict(rows))
        if temperature is None:
            return found
        return replace(as_arrays(objective.predict(rows / temperature)), classes=found.values)


def as_arrays(predictions: Predictions) -> TaskPredictions:
    """Predictions as numpy arrays on the CPU."""
    if predictions.probabilities is not None:
        return TaskPredictions(predictions.probabilities.float().cpu().numpy(), None)
    assert predictions.scores is not None
    return TaskPredictions(None, predictions.scores.float().cpu().numpy())


def _unseen(block: TokenStore, rows: dict[bytes, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The examples of ``block`` that are not in ``rows`` yet, and the row (E,) of each example.

    ``rows`` maps examples, by a hash of their tokens, to rows of outputs; it is added to.
    """
    fresh: list[int] = []
    found = np.empty(block.n_examples, np.int64)
    for example, key in enumerate(_keys(block)):
        known = len(rows)
        found[example] = rows.setdefault(key, known)
        if found[example] == known:
            fresh.append(example)
    return np.array(fresh, np.int64), found


def _keys(store: TokenStore) -> Iterator[bytes]:
    """A hash of the tokens, lengths and segments of each example."""
    n = store.sequences_per_example
    shapes = np.stack([np.diff(store.offsets), store.segment_starts], axis=1).reshape(-1, 2 * n)
    for example, shape in enumerate(shapes):
        start, stop = store.offsets[example * n], store.offsets[(example + 1) * n]
        yield blake2b(store.ids[start:stop].tobytes() + shape.tobytes(), digest_size=16).digest()


def _vectors(
    model: FrozenModel,
    task: str,
    block: TokenStore,
    examples: NDArray[np.int64],
    *,
    segment_ids: bool,
    tick: Tick | None,
) -> Tensor:
    """The vectors (E, n, D) of some examples of ``block``; ``tick`` is told of all that the block holds."""
    n = block.sequences_per_example
    some = block.take(examples)
    flat = replace(some, truncated=np.zeros(len(examples) * n, bool), sequences_per_example=1)
    if n == 1:
        sequences, places = flat, np.arange(len(examples))
    else:
        fresh, places = _unseen(flat, {})
        sequences = flat.take(fresh)
    found = torch.empty(sequences.n_examples, model.model.width, device=model.device)
    done, told = 0, 0
    for batch in length_batches(sequences):
        for fitting, vectors in _fitting(model, task, sequences, batch, segment_ids=segment_ids):
            found[torch.from_numpy(fitting).to(model.device)] = vectors
        done += len(batch)
        share = block.n_examples * done // sequences.n_examples
        if tick is not None:
            tick(share - told)
        told = share
    if tick is not None and told < block.n_examples:
        tick(block.n_examples - told)
    return found[torch.from_numpy(places).to(model.device)].unflatten(0, (-1, n))


def _fitting(
    model: FrozenModel, task: str, store: TokenStore, examples: NDArray[np.int64], *, segment_ids: bool
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """The vectors (E, D) of ``examples`` of one sequence, in as many parts as memory asks for. Raises `UsageError`."""
    waiting = [examples]
    while waiting:
        part = waiting.pop()
        try:
            parts = at("evaluation: forward", [Part(task, part)])
            batch = pack(parts, {task: store}, segment_ids=segment_ids).to(model.device)
            vectors = model.vectors(batch)[batch.parts[0].sequences[:, 0]]
        except torch.OutOfMemoryError as error:
            if len(part) == 1:
                raise UsageError(
                    f"out of memory with one text of {task} ({error}); expected that one fits; lower "
                    "encoder.max_tokens, or choose a smaller encoder"
                ) from None
            waiting += [part[len(part) // 2 :], part[: len(part) // 2]]
        else:
            yield part, vectors
            continue
        torch.cuda.empty_cache()
