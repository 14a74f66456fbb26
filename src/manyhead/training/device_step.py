"""Updates that the host only starts: it reads no number of theirs until it asks for those of many steps at once.

A step runs forward, backward, surgery, clipping and optimiser on tensors that stay where they are, so that on CUDA it
can be captured as one graph for each shape of batch and replayed. Elsewhere, and without capture, the same function
runs as it is. No figure of it on a GPU has been measured.

It gives the weights that `take_step` gives, up to rounding and other dropout masks. A step whose losses or gradient are
not finite changes nothing, and unless the learner skips such steps, neither do those behind it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from manyhead.balancing.base import Balancer
from manyhead.balancing.pcgrad import Pcgrad
from manyhead.batching import pack
from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.encoder.pooling import Cls, Mean, Pooler
from manyhead.encoder.varlen_attention import KERNELS, VarlenAttention
from manyhead.errors import UsageError
from manyhead.objectives.base import Piece, reduce_losses
from manyhead.schedules.base import Step
from manyhead.schedules.draws import permutations
from manyhead.training.device_rows import DeviceRows, pcgrad_weights
from manyhead.training.gradients import JointGradients
from manyhead.training.padded_batch import Buffers, PaddedBatch, Shape, shape_of
from manyhead.training.segments import Spans, Split, split_of
from manyhead.training.step import Learner, StepResult, diverged, micro_seed
from manyhead.training.task_gradients import TaskGradients

WARM_UPS = 2
"""Runs of a step, without an update, ahead of its capture."""


@dataclass(frozen=True)
class DeviceOptions:
    """How steps run: the ``kernel`` of attention, captured as graphs or not, and read every so many steps."""

    kernel: str = "efficient"
    capture: bool = False
    read_every: int = 1


class DeviceStep:
    """Takes the steps of a learner on its model's device.

    The learner's optimiser becomes one whose rates are tensors. Raises `UsageError` for a learner that asks for what
    only `take_step` does.
    """

    def __init__(self, learner: Learner, longest: int, options: DeviceOptions) -> None:
        """No sequence of a batch may be longer than ``longest`` tokens."""
        _check(learner)
        self._learner = learner
        self._model = learner.lesson.model.train()
        encoder = self._model.encoder
        assert isinstance(encoder, PackedEncoder)
        encoder.sparse_embedding_gradients(False)
        learner.extras.train()
        self._device = next(self._model.parameters()).device
        self._options = options
        self._longest = longest
        self._tasks = tuple(learner.lesson.data)
        self._classes = {
            task: data.targets is not None and data.targets.dtype.kind in "iu"
            for task, data in learner.lesson.data.items()
        }
        self._rates = _with_rates_as_tensors(learner.optimizer, self._device)
        self._buffers: dict[Shape, Buffers] = {}
        self._graphs: dict[Shape, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None
        self._stream: Any = None
        self._surgery = _surgery(learner)
        zero = partial(torch.zeros, device=self._device)
        self._held, self._stopped, self._row = zero(()), zero(()), zero(1, dtype=torch.int64)
        self._read_rows = zero(options.read_every + WARM_UPS, len(self._tasks) + 2)
        self._absent = torch.full((), math.nan, device=self._device)
        self._waiting: list[tuple[Step, dict[str, int], int]] = []

    @property
    def is_full(self) -> bool:
        """Whether as many steps wait to be read as there is room for."""
        return len(self._waiting) == self._options.read_every

    def take(self, step: Step, factor: float = 1.0) -> None:
        """Starts an update, its rates being the full ones times ``factor``. Raises ValueError where `is_full`."""
        if self.is_full:
            raise ValueError(f"{len(self._waiting)} steps have not been read")
        lesson, learner = self._learner.lesson, self._learner
        parts = sorted(
            (part for part in step.parts if len(part.examples)), key=lambda part: self._tasks.index(part.task)
        )
        stores = {part.task: lesson.data[part.task].tokens for part in parts}
        batch = pack(parts, stores, segment_ids=lesson.segment_ids)
        targets = {part.task: torch.from_numpy(_targets(lesson.data[part.task])[part.examples]) for part in parts}
        shape = shape_of(batch, self._longest)
        count = len(shape.parts)
        orders = torch.arange(count).repeat(count, 1)
        if isinstance(learner.balancer, Pcgrad):
            key = (learner.seed, learner.stage, step.index, "pcgrad")
            orders = torch.from_numpy(permutations(count, key, count=count))
        if shape not in self._buffers:
            self._buffers[shape] = Buffers(shape, self._classes, self._device)
        self._buffers[shape].fill(batch, targets, orders)
        for rate, full in self._rates:
            rate.fill_(full * factor)
        if self._options.capture and shape not in self._graphs:
            self._graphs[shape] = self._captured(self._buffers[shape].batch)
        torch.manual_seed(micro_seed(learner.seed, learner.stage, step.index, 0))
        if shape in self._graphs:
            self._graphs[shape].replay()
        else:
            self._run(self._buffers[shape].batch)
        self._waiting.append((step, {part.task: len(part.examples) for part in parts}, batch.n_tokens))

    def read(self) -> list[StepResult]:
        """What the steps since the last time did, first to last; this waits for them.

        Raises `DivergedError` where one was not finite and the learner does not skip it: it and those behind it have
        changed nothing.
        """
        rows = self._read_rows[: len(self._waiting)].tolist()
        self._row.zero_()
        waiting, self._waiting = self._waiting, []
        found: list[StepResult] = []
        for (step, counts, tokens), (*losses, norm, skipped) in zip(waiting, rows, strict=True):
            own = {task: loss for task, loss in zip(self._tasks, losses, strict=True) if task in counts}
            if skipped and not self._learner.skips:
                raise diverged(self._learner, step, own)
            found.append(StepResult(own, counts, math.nan if skipped else norm, tokens, skipped=bool(skipped)))
        return found

    def _run(self, batch: PaddedBatch) -> None:
        """One update, all of it on the device."""
        self._model.zero_grad()
        if self._surgery is None:
            losses = self._losses(batch)
            self._backward(losses)
        else:
            losses = self._surgery.gradients(batch, self._losses, self._backward)
        self._update(losses)

    def _losses(self, batch: PaddedBatch) -> dict[str, Tensor]:
        """Each task's mean loss."""
        model, lesson = self._model, self._learner.lesson
        kernel = KERNELS[self._options.kernel]

        def attention_of(heads: int, rate: float, dtype: torch.dtype) -> VarlenAttention:
            return VarlenAttention(batch.sequences, heads, rate, dtype, kernel)

        vectors = model.projections(_pooled(model.pooling, device_states(model, batch, attention_of), batch))
        found: dict[str, Tensor] = {}
        for part in batch.shape.parts:
            own = vectors.index_select(0, batch.rows[part.task].flatten()).view(part.examples, part.each, -1)
            piece = Piece(model.head(part.task)(own), own, batch.targets[part.task])
            found[part.task] = reduce_losses(lesson.tasks[part.task].losses(piece), part.examples)
        return found

    def _backward(self, losses: Mapping[str, Tensor]) -> None:
        constants = self._learner.balancer.constants
        torch.stack([loss * constants.get(task, 1.0) for task, loss in losses.items()]).sum().backward()

    def _update(self, losses: Mapping[str, Tensor]) -> None:
        """Clips and updates, or leaves everything as it is; notes which."""
        learner = self._learner
        seen = {task: loss.detach() for task, loss in losses.items()}
        norm = torch.nn.utils.get_total_norm([each.grad for each in self._model.parameters() if each.grad is not None])
        values = torch.stack([*seen.values(), norm])
        is_bad = (~values.isfinite()).any().float()
        self._stopped.copy_(torch.maximum(self._stopped, torch.zeros_like(is_bad) if learner.skips else is_bad))
        skips = torch.maximum(torch.maximum(is_bad, self._stopped), self._held)
        optimizer: Any = learner.optimizer
        optimizer.grad_scale = None if learner.clipping.norm is None else learner.clipping.factor(norm).reciprocal()
        optimizer.found_inf = skips
        optimizer.step()
        # A step that waits for the end of a stopped run is not told: it never was.
        row = torch.stack(
            [*(seen.get(task, self._absent) for task in self._tasks), norm, torch.maximum(is_bad, self._stopped)]
        )
        self._read_rows.index_copy_(0, self._row, row[None])
        self._row.add_(1)

    def _captured(self, batch: PaddedBatch) -> torch.cuda.CUDAGraph:
        """The step on the batches that arrive in this one's memory. Runs ahead of it make what is made once."""
        if self._pool is None:
            self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        kept = self._row.clone()
        self._held.fill_(1.0)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                self._run(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        self._model.zero_grad()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            self._run(batch)
        self._model.zero_grad()
        self._held.zero_()
        self._row.copy_(kept)
        return graph


class _Surgery:
    """Rows of the tasks' gradients, and PCGrad on them."""

    def __init__(self, split: Split, rows: DeviceRows, *, always: bool) -> None:
        self._split = split
        self._rows = rows
        self._always = always

    def gradients(
        self,
        batch: PaddedBatch,
        losses_of: Callable[[PaddedBatch], dict[str, Tensor]],
        backward: Callable[[Mapping[str, Tensor]], None],
    ) -> dict[str, Tensor]:
        """Leaves the combined gradient in the parameters; returns the losses."""
        shape = batch.shape
        tokens = Spans({route.task: slice(route.start, route.stop) for route in shape.routes})
        self._rows.start([part.task for part in shape.parts])
        with self._split.watching({shape.own_sequences: Spans(shape.spans), shape.tokens: tokens}):
            losses = losses_of(batch)
            with self._split.into(self._rows):
                backward(losses)
        self._rows.combine(pcgrad_weights(self._rows.gramian(), batch.orders, always=self._always))
        return losses


def device_states(model: Any, batch: PaddedBatch, attention_of: Any) -> Tensor:
    """States (T, D) of a padded batch, fp32."""
    with torch.autocast(
        batch.input_ids.device.type, dtype=model.autocast, enabled=model.autocast is not None, cache_enabled=False
    ):
        states = model.encoder.run_with(
            attention_of, batch.input_ids, batch.segment_ids, batch.positions, batch.shape.routes
        )
    return states.float()


def _pooled(pooling: Any, states: Tensor, batch: PaddedBatch) -> Tensor:
    """As the pooling does, by what the batch knows on its device: vectors (B, D)."""
    if isinstance(pooling, Mean):
        offsets = batch.sequences.offsets
        sums = states.new_zeros(len(offsets) - 1, states.shape[1]).index_add(0, batch.sequence_of, states)
        return sums.index_select(0, batch.own) / offsets.diff().index_select(0, batch.own)[:, None]
    first = states.index_select(0, batch.first)
    return torch.tanh(pooling.dense(first)) if isinstance(pooling, Pooler) else first


def _targets(data: Any) -> Any:
    assert data.targets is not None
    return data.targets


def _surgery(learner: Learner) -> _Surgery | None:
    balancer, model = learner.balancer, learner.lesson.model
    if not isinstance(balancer, Pcgrad):
        return None
    shared = [each for name, each in model.named_parameters() if each.requires_grad and model.task_of(name) is None]
    split = split_of(model, frozenset(shared))
    if split is None:
        raise _unsupported("gradients that cannot be split by task")
    assert isinstance(model.encoder, PackedEncoder)
    fused = model.encoder.fused_modules()
    halves = frozenset(each.weight for each in fused if isinstance(each, nn.Linear))
    rows = DeviceRows(
        len(learner.lesson.data), shared, halves, model.word_embeddings(), model.autocast or torch.float32
    )
    return _Surgery(split, rows, always=balancer.always)


def _with_rates_as_tensors(optimizer: torch.optim.Optimizer, device: torch.device) -> list[tuple[Tensor, float]]:
    """Makes the rates tensors; returns them and what they were."""
    found: list[tuple[Tensor, float]] = []
    for group in optimizer.param_groups:
        full = float(group["lr"])
        group["lr"] = torch.tensor(full, device=device)
        group["capturable"] = True
        found.append((group["lr"], full))
    # It warns of steps that are not captured, which here are meant.
    optimizer._warned_capturable_if_run_uncaptured = True  # pyright: ignore[reportAttributeAccessIssue]
    return found


def _check(learner: Learner) -> None:
    """Raises `UsageError` for what the device step cannot do."""
    lesson, model = learner.lesson, learner.lesson.model
    encoder = model.encoder
    if not (isinstance(encoder, PackedEncoder) and encoder.runs_fused) or model.experts.tasks:
        raise _unsupported("an encoder that is not of BERT's kind, or has experts")
    if type(model.pooling) not in (Cls, Mean, Pooler):
        raise _unsupported(f"pooling by {type(model.pooling).__name__.lower()}")
    if lesson.pretraining is not None or lesson.regularisers or lesson.teaching is not None:
        raise _unsupported("pretraining, regularisers or distillation")
    if type(learner.balancer) not in (Balancer, Pcgrad):
        raise _unsupported(f"balancing by {type(learner.balancer).__name__.lower()}")
    gradients = learner.gradients
    by_task = isinstance(gradients, TaskGradients) and gradients.clipping.norm is not None
    if by_task or not isinstance(gradients, JointGradients | TaskGradients) or learner.accumulation > 1:
        raise _unsupported("gradients clipped by task, or steps in pieces")
    if not isinstance(learner.optimizer, torch.optim.Adam) or not learner.optimizer.defaults.get("fused"):
        raise _unsupported("an optimiser other than adam and adamw")
    if any(True for _ in learner.extras.parameters()):
        raise _unsupported("losses with parameters of their own")


def _unsupported(what: str) -> UsageError:
    return UsageError(f"{what}: a step without reading on the host does not have this; take the usual steps")
