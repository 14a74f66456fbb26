"""From tokens to predictions: one task's examples in length-aware packed batches through the model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from manyhead.batching import length_batches, pack
from manyhead.data.tokens import TokenStore
from manyhead.errors import UsageError
from manyhead.faults import at
from manyhead.model import MultiTaskModel
from manyhead.objectives.base import Objective, Predictions
from manyhead.schedules.base import Part

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TaskPredictions:
    """Predictions of E examples in their order: ``probabilities`` (E, C), or ``scores`` (E,) for a score."""

    probabilities: Floats | None
    scores: Floats | None

    @property
    def values(self) -> NDArray[np.int64] | Floats:
        """The predicted class indices, or the scores: (E,)."""
        if self.probabilities is not None:
            return self.probabilities.argmax(1)
        assert self.scores is not None
        return self.scores

    @property
    def are_finite(self) -> bool:
        """Whether all of them are finite numbers."""
        return all(bool(np.isfinite(each).all()) for each in (self.probabilities, self.scores) if each is not None)


def predict_store(
    model: MultiTaskModel,
    task: str,
    store: TokenStore,
    objective: Objective,
    *,
    segment_ids: bool = True,
    tick: Callable[[int], None] | None = None,
) -> TaskPredictions:
    """Predictions for every example of ``store``; ``tick`` is called with the examples done after each batch.

    The model is in evaluation mode meanwhile; no random number is drawn.
    """
    outputs = raw_outputs(model, task, store, objective.outputs, segment_ids=segment_ids, tick=tick)
    device = next(model.parameters()).device
    with torch.inference_mode():
        return read_outputs(model, task, objective, torch.from_numpy(outputs).to(device))


def raw_outputs(
    model: MultiTaskModel,
    task: str,
    store: TokenStore,
    width: int,
    *,
    segment_ids: bool = True,
    tick: Callable[[int], None] | None = None,
) -> Floats:
    """The outputs (E, O), O = ``width``, of the task's head for every example of ``store``; see `predict_store`."""
    found = np.empty((store.n_examples, width), dtype=np.float32)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for examples in length_batches(store):
                for fitting, outputs in _fitting(model, task, store, examples, segment_ids=segment_ids):
                    found[fitting] = outputs.float().cpu().numpy()
                if tick is not None:
                    tick(len(examples))
    finally:
        model.train(training)
    return found


def _fitting(
    model: MultiTaskModel, task: str, store: TokenStore, examples: NDArray[np.int64], *, segment_ids: bool
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """The head's outputs (E, O) of ``examples`` in as many parts as memory asks for. Raises `UsageError`."""
    waiting = [examples]
    while waiting:
        part = waiting.pop()
        try:
            parts = at("evaluation: forward", [Part(task, part)])
            batch = pack(parts, {task: store}, segment_ids=segment_ids).to(next(model.parameters()).device)
            outputs = model(batch)[task]
        except torch.OutOfMemoryError as error:
            if len(part) == 1:
                raise UsageError(
                    f"out of memory with one example of {task} ({error}); expected that one fits; lower "
                    "encoder.max_tokens, or choose a smaller encoder"
                ) from None
            waiting += [part[len(part) // 2 :], part[: len(part) // 2]]
        else:
            yield part, outputs
            continue
        torch.cuda.empty_cache()


def read_outputs(model: MultiTaskModel, task: str, objective: Objective, outputs: Tensor) -> TaskPredictions:
    """What the outputs (E, O) of a task's head predict, behind its threshold where it has one."""
    threshold = model.threshold(task)
    return as_arrays(objective.predict(outputs if threshold is None else outputs - threshold))


def as_arrays(predictions: Predictions) -> TaskPredictions:
    """Predictions as numpy arrays on the CPU."""
    if predictions.probabilities is not None:
        return TaskPredictions(predictions.probabilities.float().cpu().numpy(), None)
    assert predictions.scores is not None
    return TaskPredictions(None, predictions.scores.float().cpu().numpy())


def embed_store(model: MultiTaskModel, store: TokenStore, *, task: str = "", segment_ids: bool = True) -> Floats:
    """Pooled vectors (S, D) of the sequences of ``store``, in order; read for ``task`` where the model has experts."""
    device = next(model.parameters()).device
    found = np.empty((store.n_examples * store.sequences_per_example, model.encoder.width), dtype=np.float32)
    by_example = found.reshape(store.n_examples, store.sequences_per_example, -1)
    model.eval()
    with torch.inference_mode():
        for examples in length_batches(store):
            batch = pack([Part(task, examples)], {task: store}, segment_ids=segment_ids).to(device)
            by_example[examples] = model.embed(batch)[batch.parts[0].sequences].float().cpu().numpy()
    return found


def freeze_for_inference(model: MultiTaskModel, autocast: torch.dtype | None) -> None:
    """Casts the dense weights of encoder and experts once to ``autocast`` instead of in each forward.

    Embeddings and layer norms stay fp32, so that predictions are bit for bit those of the evaluation while training.
    """
    model.autocast = autocast
    model.requires_grad_(False).eval()
    if autocast is not None:
        for part in (model.encoder, model.experts):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    module.to(autocast)
