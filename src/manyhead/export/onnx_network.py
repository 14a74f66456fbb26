"""A model as a network of padded batches, which torch can write down as a graph.

A padded batch of B sequences of L tokens is a packed batch of B L tokens whose attention has a single bucket. So the
encoder, its experts and its norms run by their own modules here; only attention and pooling, which follow the lengths
of sequences in packed batches, follow a mask instead.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from manyhead.encoder.attention import Bucket, PackedLayout, packed_attention
from manyhead.encoder.copied_encoder import CopiedEncoder
from manyhead.encoder.flow import Flow, flowing
from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.encoder.per_task import PerTask
from manyhead.encoder.pooling import AttentionMean, Cls, ConvMean, Max, Mean, Pooler
from manyhead.export.source import NoCounterpartError
from manyhead.model import MultiTaskModel
from manyhead.objectives.base import Objective
from manyhead.packed import Route

ATTENTION = "manyhead_padded"
"""Name of the attention implementation that encoders are exported with."""

_FAR = -1e4

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
PAIRS, EMBEDDING = "pairs", "embedding"
INSTEAD = "manyhead itself runs the model: manyhead predict, manyhead serve"
_RESERVED = frozenset((*INPUTS, PAIRS, EMBEDDING))

Pool = Callable[[Any, Tensor, Tensor, Tensor | None], Tensor]
"""From a module of pooling, states (B, L, D), a mask (B, L) that is 1 on tokens, and received attention, to (B, D)."""


class PaddedNetwork(nn.Module):
    """Some tasks of ``model``, all read by the same encoder, from padded batches of tokens to what they predict.

    ``siamese`` are those of the tasks that read a text's two sequences apart. With ``segments`` False all tokens are
    segment 0. Raises `NoCounterpartError` where a part of the model has no form for padded batches.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        objectives: Mapping[str, Objective],
        siamese: Mapping[str, bool],
        *,
        segments: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.objectives = dict(objectives)
        self.siamese = dict(siamese)
        first = next(iter(self.siamese))
        encoder = model.encoder.of(first) if isinstance(model.encoder, CopiedEncoder) else model.encoder
        self.encoder: PackedEncoder = encoder
        self.pooling = _own(model.pooling, first)
        self.projections = _own(model.projections, first)
        self.route = first
        self.segments = segments and encoder.has_segments
        if type(self.pooling) not in POOLING:
            raise NoCounterpartError(
                f"encoder.pooling: {type(self.pooling).__name__}", "it has no form for padded batches", INSTEAD
            )
        self._pool = POOLING[type(self.pooling)]  # looked up here: while torch follows it, a module has another type
        if encoder.capture and not encoder.packed:
            kind = encoder.model.config.model_type
            reason = f"it is not known for a {kind}, which does not run packed"
            raise NoCounterpartError("encoder.pooling: attention", reason, INSTEAD)

    @property
    def takes_pairs(self) -> bool:
        """Whether it has the input `PAIRS`."""
        return any(self.siamese.values())

    @property
    def outputs(self) -> dict[str, str]:
        """The name of each task's output: the task's own, unless something else of the graph has that name."""
        return {task: f"task.{task}" if task in _RESERVED else task for task in self.siamese}

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, pairs: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Three of (B, L), and the rows (P, 2) of siamese pairs, to vectors (B, D) and what each task predicts.

        That is (B, C) probabilities or (B,) scores, of siamese tasks (P, C) or (P,).
        """
        real = attention_mask > 0
        states, received = self._states(input_ids, real, token_type_ids)
        vectors = self.projections(self._pool(self.pooling, states, real.to(states.dtype), received))
        found = [vectors]
        for task, siamese in self.siamese.items():
            found.append(self._predicted(task, vectors[pairs] if siamese else vectors[:, None]))
        return tuple(found)

    def _predicted(self, task: str, vectors: Tensor) -> Tensor:
        outputs = self.model.head(task)(vectors)
        threshold, temperature = self.model.threshold(task), self.model.temperatures.get(task)
        outputs = outputs if threshold is None else outputs - threshold
        predictions = self.objectives[task].predict(outputs if temperature is None else outputs / temperature)
        found = predictions.scores if predictions.probabilities is None else predictions.probabilities
        assert found is not None
        return found

    def _states(self, input_ids: Tensor, real: Tensor, segment_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """States (B, L, D) of the pooled layer, and received attention (B, L) where it is captured."""
        encoder = self.encoder
        known = inspect.signature(encoder.model.forward).parameters
        rows, width = input_ids.shape
        arguments: dict[str, Any] = {"input_ids": input_ids}
        if self.segments:
            arguments["token_type_ids"] = segment_ids
        elif encoder.has_segments:
            arguments["token_type_ids"] = torch.zeros_like(input_ids)
        if not encoder.packed:
            return self._run({**arguments, "attention_mask": real.to(input_ids.dtype)}), None
        if "position_ids" in known:
            first = encoder.first_position
            arguments["position_ids"] = torch.arange(first, first + width).expand(rows, width)
        mask = torch.zeros(()).masked_fill(~real, torch.finfo(torch.float32).min)[:, None, None]
        received: list[Tensor] | None = [] if encoder.capture else None
        layout = PackedLayout((Bucket(0, rows, width, mask),), None, received)
        flow = Flow(layout, (rows * width,), (Route(self.route, 0, rows * width),))
        with flowing(flow):
            flat = {name: each.reshape(1, rows * width) for name, each in arguments.items()}
            states = self._run({**flat, "packed_layout": layout})[0]
            for run in encoder.behind:
                states = run(states, flow)
        weights = received[max(0, encoder.layer - 1)].view(rows, width) if received else None
        return states.view(rows, width, -1), weights

    def _run(self, arguments: Mapping[str, Any]) -> Tensor:
        encoder: Any = self.encoder
        if encoder.layer == encoder.n_layers:
            return encoder.model(**arguments).last_hidden_state
        return encoder.model(**arguments, output_hidden_states=True).hidden_states[encoder.layer]

    @contextmanager
    def exporting(self) -> Iterator[None]:
        """While this lasts, attention runs in one bucket; the model is as it was behind it."""
        packed, training = self.encoder.packed, self.training
        self.eval()
        if packed:
            self.encoder.model.set_attn_implementation(ATTENTION)
        try:
            with torch.no_grad():
                yield
        finally:
            self.encoder.use_packed(packed)
            self.train(training)


def padded_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_layout: PackedLayout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What `packed_attention` gives for a layout of one bucket, without moving tokens into it and back."""
    if packed_layout.received is not None:
        return packed_attention(
            module, query, key, value, attention_mask,
            packed_layout=packed_layout, scaling=scaling, sliding_window=sliding_window, **others,
        )  # fmt: skip
    (bucket,) = packed_layout.buckets
    assert bucket.mask is not None
    heads, width = query.shape[1], query.shape[3]
    q, k, v = (each.reshape(heads, bucket.count, bucket.width, width) for each in (query, key, value))
    scale = width**-0.5 if scaling is None else scaling
    scores = torch.matmul(q * scale, k.transpose(2, 3)) + bucket.mask.transpose(0, 1)
    if sliding_window is not None:
        places = torch.arange(bucket.width)
        scores = scores + ((places[:, None] - places).abs() >= sliding_window).to(scores.dtype) * _FAR
    found = torch.matmul(scores.softmax(-1), v)
    return found.reshape(1, heads, bucket.count * bucket.width, width).transpose(1, 2), None


AttentionInterface.register(ATTENTION, padded_attention)


def _own(module: nn.Module, task: str) -> nn.Module:
    return module.of(task) if isinstance(module, PerTask) else module


def _mean(states: Tensor, weights: Tensor) -> Tensor:
    return (states * weights[:, :, None]).sum(1) / weights.sum(1, keepdim=True)


def _pool_cls(pooling: Cls, states: Tensor, real: Tensor, received: Tensor | None) -> Tensor:
    del pooling, real, received
    return states[:, 0]


def _pool_pooler(pooling: Pooler, states: Tensor, real: Tensor, received: Tensor | None) -> Tensor:
    del real, received
    return torch.tanh(pooling.dense(states[:, 0]))


def _pool_mean(pooling: Mean, states: Tensor, real: Tensor, received: Tensor | None) -> Tensor:
    del pooling, received
    return _mean(states, real)


def _pool_max(pooling: Max, states: Tensor, real: Tensor, received: Tensor | None) -> Tensor:
    del pooling, received
    return states.masked_fill(real[:, :, None] == 0, torch.finfo(states.dtype).min).amax(1)


def _pool_attention(pooling: AttentionMean, states: Tensor, real: Tensor, received: Tensor | None) -> Tensor:
    del pooling
    assert received is not None
    return _mean(states, received * real)


def _pool_conv(pooling: ConvMean, states: Tensor, real: Tensor, received: Tensor | None) -> Tensor:
    del received
    tokens, length = states * real[:, :, None], states.shape[1]
    outputs: list[Tensor] = []
    for dense, reach in zip(pooling.kernels, pooling.reaches, strict=True):
        wide = F.pad(tokens, (0, 0, reach, reach))
        near = torch.cat([wide[:, start : start + length] for start in range(2 * reach + 1)], dim=2)
        outputs.append(torch.relu(dense(near)))
    return _mean(pooling.join(torch.cat(outputs, dim=2)), real)


POOLING: Mapping[type[nn.Module], Pool] = cast(
    "Mapping[type[nn.Module], Pool]",
    {
        Cls: _pool_cls,
        Pooler: _pool_pooler,
        Mean: _pool_mean,
        Max: _pool_max,
        AttentionMean: _pool_attention,
        ConvMean: _pool_conv,
    },
)
