"""BERT's forward for inference on a CPU: weights laid out once, GELU inside the products, and no padding at all.

Sequences of one length that follow each other are one run of dense attention, so batches should be sorted by length.
The residual stream and its norms are fp32; products and what lies between them have the type of `Precision`. The last
layer runs for first tokens alone where pooling reads no others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyhead.encoder.bert_layer import BertLayer, bert_layers_of
from manyhead.encoder.inference_dense import FloatDense, Int8Dense
from manyhead.encoder.packed_encoder import POSITIONS_AFTER_PADDING, PackedEncoder, TokenStates
from manyhead.packed import PackedBatch, offsets_of

Dense = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Precision:
    """``dtype`` of what products give, and of the products themselves unless they are ``int8``."""

    dtype: torch.dtype
    int8: bool = False

    def dense(self, weight: Tensor, bias: Tensor, *, gelu: bool = False) -> Dense:
        """The dense layer of ``weight`` (F, G) and ``bias`` (F,)."""
        kind = Int8Dense if self.int8 else FloatDense
        return kind(weight, bias, self.dtype, gelu=gelu)


@dataclass(frozen=True)
class _Run:
    """``count`` sequences of ``length`` tokens, from sequence ``first`` and token ``start`` on."""

    first: int
    start: int
    count: int
    length: int


class InferenceEncoder:
    """The layers of an encoder up to the pooled one, with its weights as they are when this is made.

    Embeddings and norms are the encoder's own modules, which must be in evaluation mode.
    """

    def __init__(self, encoder: PackedEncoder, precision: Precision, *, first_only: bool = False) -> None:
        layers = bert_layers_of(encoder.model)
        assert layers is not None
        self._model: Any = encoder.model
        self._has_segments = encoder.has_segments
        config: Any = encoder.model.config
        self._first_position = int(config.pad_token_id) + 1 if config.model_type in POSITIONS_AFTER_PADDING else 0
        self._first_only = first_only
        project = getattr(self._model, "embeddings_project", None)
        self._project = None if project is None else precision.dense(project.weight, project.bias)
        last = encoder.layer - 1
        self._layers = [
            _Layer(layer, precision, first_only=first_only and number == last)
            for number, layer in enumerate(layers[: encoder.layer])
        ]

    def __call__(self, batch: PackedBatch) -> tuple[TokenStates, tuple[int, ...]]:
        """States (T, D) and the lengths of their sequences; with ``first_only`` (B, D), and all lengths are 1."""
        lengths = batch.lengths
        states = self._embedded(batch)
        runs = _runs(lengths)
        firsts = torch.tensor(offsets_of(lengths)[:-1])
        for layer in self._layers:
            states = layer(states, runs, firsts)
        if not self._first_only:
            return TokenStates(states, None), lengths
        return TokenStates(states if self._layers else states[firsts], None), (1,) * len(lengths)

    def _embedded(self, batch: PackedBatch) -> Tensor:
        """The states (T, D) that enter the first layer."""
        positions = torch.cat([torch.arange(length) for length in batch.lengths]) + self._first_position
        segments = batch.segment_ids if self._has_segments else torch.zeros_like(batch.segment_ids)
        found = self._model.embeddings(
            input_ids=batch.input_ids[None], token_type_ids=segments[None], position_ids=positions[None]
        )
        return found[0] if self._project is None else self._project(found[0]).float()


def can_run(encoder: nn.Module, precision: Precision) -> bool:
    """Whether an `InferenceEncoder` does what ``encoder`` does: one on the CPU of BERT's kind, and nothing put in."""
    if not isinstance(encoder, PackedEncoder) or not encoder.packed or encoder.capture:
        return False
    if encoder.behind or not encoder.fused:
        return False
    if encoder.word_embeddings.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if precision.dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    layers = bert_layers_of(encoder.model)
    return layers is not None and not any(layer.is_changed for layer in layers)


class _Layer:
    """One of BERT's layers; with ``first_only`` for the first token of each sequence alone."""

    def __init__(self, layer: BertLayer, precision: Precision, *, first_only: bool) -> None:
        self._heads = layer.heads
        self._first_only = first_only
        groups = ((layer.query,), (layer.key, layer.value)) if first_only else ((layer.query, layer.key, layer.value),)
        self._inner = [
            precision.dense(torch.cat([each.weight for each in group]), torch.cat([each.bias for each in group]))
            for group in groups
        ]
        self._out = precision.dense(layer.out.weight, layer.out.bias)
        self._out_norm = layer.out_norm
        self._intermediate = precision.dense(layer.intermediate.weight, layer.intermediate.bias, gelu=True)
        self._output = precision.dense(layer.output.weight, layer.output.bias)
        self._output_norm = layer.output_norm

    def __call__(self, states: Tensor, runs: Sequence[_Run], firsts: Tensor) -> Tensor:
        """States (T, D) to (T, D), or to (B, D) of the tokens ``firsts``."""
        if self._first_only:
            inputs = states[firsts]
            query, (key, value) = self._inner[0](inputs), self._inner[1](states).chunk(2, 1)
        else:
            inputs = states
            query, key, value = self._inner[0](states).chunk(3, 1)
        found: list[Tensor] = []
        for run in runs:
            rows = slice(run.start, run.start + run.count * run.length)
            asking = slice(run.first, run.first + run.count) if self._first_only else rows
            found.append(_attention(query[asking], key[rows], value[rows], run.count, self._heads))
        context = found[0] if len(found) == 1 else torch.cat(found)
        states = _norm(self._out_norm, inputs + self._out(context))
        return _norm(self._output_norm, states + self._output(self._intermediate(states)))


def _attention(query: Tensor, key: Tensor, value: Tensor, count: int, heads: int) -> Tensor:
    """Attention within ``count`` sequences of one length: rows (n L, D) of each to (n L, D); queries may be fewer."""

    def by_head(rows: Tensor) -> Tensor:
        return rows.view(count, -1, heads, rows.shape[1] // heads).transpose(1, 2).flatten(0, 1)

    q, k, v = by_head(query), by_head(key), by_head(value)
    scores = torch.baddbmm(q.new_empty(1), q, k.transpose(1, 2), beta=0, alpha=q.shape[-1] ** -0.5)
    weights = scores.softmax(-1, dtype=torch.float32).to(v.dtype)
    return torch.bmm(weights, v).view(count, heads, -1, v.shape[-1]).transpose(1, 2).reshape(query.shape)


def _norm(norm: nn.LayerNorm, rows: Tensor) -> Tensor:
    return F.layer_norm(rows, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _runs(lengths: Sequence[int]) -> list[_Run]:
    runs: list[_Run] = []
    first, start = 0, 0
    for length, group in groupby(lengths):
        count = len(list(group))
        runs.append(_Run(first, start, count, length))
        first, start = first + count, start + count * length
    return runs
