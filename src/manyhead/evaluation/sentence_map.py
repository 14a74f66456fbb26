"""Sentences in a plane: what an encoder puts near what, by three ways to make one vector of a sentence's tokens.

The plane of a task is that of the two directions in which its vectors vary most (PCA: the SVD of the centred vectors).
How much of the variance it shows is said beside it; what two directions do not show may still be far apart.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from manyhead.batching import length_batches, pack
from manyhead.data.task_data import TaskData
from manyhead.data.tokens import TokenStore
from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.encoder.pooling import AttentionMean, Cls, Mean
from manyhead.model import MultiTaskModel
from manyhead.recipe.schema import Recipe, Task
from manyhead.schedules.base import Part

MOST_SEQUENCES = 300
"""Points of a task, at most."""
MOST_TOKENS = 12_000
"""Tokens that are read for a task, about at most: long texts make fewer points, not a longer wait."""
_SEED = 0x5A17
_GROUPS = 5
"""Groups of scores that a sample is drawn from alike."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Plane:
    """Points in the plane of the two first principal components, whose shares of the variance are ``variance``."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    variance: tuple[float, float]


@dataclass(frozen=True)
class TaskMap:
    """Points of P sequences, those of ``n`` examples out of ``of``.

    Attributes:
        reads: What a point is: "text", "pair" (read as one sequence) or "text of a pair".
        layer: The encoder's layer that is pooled, 0 the embeddings.
        rows: (P,) the example's place among those given.
        texts: (P,) 0 for the first text of a pair, 1 for the second; 0 otherwise.
        ids: (P,) of the examples.
        targets: (P,) names of classes, or scores; empty where there are none.
        planes: "cls", "mean" and "attention" (weighted by the attention that tokens receive); None where there is none,
            which ``notes`` explains.
    """

    n: int
    of: int
    reads: str
    layer: int
    rows: tuple[int, ...]
    texts: tuple[int, ...]
    ids: tuple[str, ...]
    targets: tuple[str | float, ...]
    planes: dict[str, Plane | None]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def map_task(
    model: MultiTaskModel,
    recipe: Recipe,
    data: TaskData,
    *,
    tick: Callable[[int], None] | None = None,
) -> TaskMap:
    """The map of a sample of ``data``, drawn alike from all classes, the same for every run on the same rows.

    ``tick`` is called with the examples done after each batch.
    """
    task = recipe.tasks[data.task]
    rows = _sample(data, task)
    some = data.take(rows)
    vectors = sentence_vectors(model, data.task, some.tokens, segment_ids=recipe.encoder.segment_ids, tick=tick)
    notes: list[str] = []
    if "attention" not in vectors:
        notes.append("this encoder does not tell attentions: there is no attention-weighted mean")
    planes = {name: plane_of(vectors[name]) if name in vectors else None for name in ("cls", "mean", "attention")}
    alike = [name for name in vectors if planes[name] is None]
    if alike:
        notes.append(f"fewer than 3 different vectors, so no plane: {', '.join(alike)}")
    each = some.tokens.sequences_per_example
    places = [place for place in range(len(rows)) for _ in range(each)]
    return TaskMap(
        n=len(rows),
        of=data.n_examples,
        reads="text" if not task.is_pair else "pair" if each == 1 else "text of a pair",
        layer=model.encoder.layer,
        rows=tuple(int(rows[place]) for place in places),
        texts=tuple(range(each)) * len(rows),
        ids=tuple(some.ids[place] for place in places),
        targets=tuple(_target(some, task, place) for place in places) if some.targets is not None else (),
        planes=planes,
        notes=tuple(notes),
    )


def sentence_vectors(
    model: MultiTaskModel,
    task: str,
    store: TokenStore,
    *,
    segment_ids: bool = True,
    tick: Callable[[int], None] | None = None,
) -> dict[str, Vectors]:
    """Vectors (S, D) of the S sequences of ``store`` by "cls", "mean" and "attention", of the layer that is pooled.

    The last is missing where the encoder does not tell the attention that tokens receive.
    """
    encoders = [each for each in model.encoder.modules() if isinstance(each, PackedEncoder)]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            poolings = {"cls": Cls(), "mean": Mean()}
            try:
                with _capturing(encoders):
                    weighted = {**poolings, "attention": AttentionMean()}
                    return _pooled(model, task, store, weighted, segment_ids=segment_ids, tick=tick)
            except (TypeError, ValueError, RuntimeError, IndexError):
                # Families say in different ways that they have no attentions; the rest has to run without.
                return _pooled(model, task, store, poolings, segment_ids=segment_ids, tick=tick)
    finally:
        model.train(training)


def plane_of(vectors: Vectors) -> Plane | None:
    """The plane of vectors (S, D); None where fewer than 3 of them differ. An axis points to its largest loading."""
    if len(np.unique(vectors.round(6), axis=0)) < 3:
        return None
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    left, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(1)])
    points = left[:, :2] * sizes[:2] * signs
    shares = sizes[:2] ** 2 / np.sum(sizes**2)
    x, y = (tuple(_short(value) for value in column) for column in points.T.tolist())
    return Plane(x, y, (_short(float(shares[0])), _short(float(shares[1]))))


@contextmanager
def _capturing(encoders: list[PackedEncoder]) -> Iterator[None]:
    """The encoders tell the attention that tokens receive."""
    before = [each.capture for each in encoders]
    try:
        for each in encoders:
            each.capture = True
        yield
    finally:
        for each, capture in zip(encoders, before, strict=True):
            each.capture = capture


def _pooled(
    model: MultiTaskModel,
    task: str,
    store: TokenStore,
    poolings: Mapping[str, nn.Module],
    *,
    segment_ids: bool,
    tick: Callable[[int], None] | None,
) -> dict[str, Vectors]:
    device = next(model.parameters()).device
    each = store.sequences_per_example
    found = {name: np.empty((store.n_examples * each, model.width), np.float32) for name in poolings}
    for examples in length_batches(store):
        batch = pack([Part(task, examples)], {task: store}, segment_ids=segment_ids).to(device)
        states = model.pooled_states(batch)
        places = (examples[:, None] * each + np.arange(each)).reshape(-1)
        order = batch.parts[0].sequences.flatten().cpu()
        for name, pooling in poolings.items():
            found[name][places] = pooling(states, batch.lengths).float().cpu()[order].numpy()
        if tick is not None:
            tick(len(examples))
    return found


def _sample(data: TaskData, task: Task) -> NDArray[np.int64]:
    """Row numbers, in order: shuffled, then by turns from each class (or part of the scores), as many as are read."""
    shuffled = np.random.default_rng(_SEED).permutation(data.n_examples)
    groups = _groups(data, task)[shuffled]
    turn = np.empty(data.n_examples, np.int64)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        turn[members] = np.arange(len(members))
    each = data.tokens.sequences_per_example
    rows = shuffled[np.argsort(turn, kind="stable")][: MOST_SEQUENCES // each]
    tokens = data.tokens.lengths().reshape(data.n_examples, each).sum(1, dtype=np.int64)[rows]
    fitting = max(1, int(np.searchsorted(np.cumsum(tokens), MOST_TOKENS, side="right")))
    return np.sort(rows[:fitting])


def _groups(data: TaskData, task: Task) -> NDArray[np.int64]:
    if data.targets is None:
        return np.zeros(data.n_examples, np.int64)
    if task.kind == "classification":
        return data.targets.astype(np.int64)
    edges = np.linspace(float(data.targets.min()), float(data.targets.max()), _GROUPS + 1)[1:-1]
    return np.searchsorted(edges, data.targets).astype(np.int64)


def _target(data: TaskData, task: Task, row: int) -> str | float:
    assert data.targets is not None
    value = data.targets[row].item()
    return _short(value) if task.kind == "regression" else task.label_names[int(value)]


def _short(value: float) -> float:
    """Four digits: a point on a screen has no more."""
    return float(f"{value:.4g}")
