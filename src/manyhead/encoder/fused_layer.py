"""A BERT layer as one node of the graph: forward and backward written out over packed tokens.

Run module by module under autocast, half of a step of short texts goes into casts, copies and launches. Here the
residual stream is fp32, products are of one type, and each state is cast once. What the backward gets back cheaply is
not kept: GELU's output is computed again. Masks are drawn in the modules' order from the same numbers, so both ways of
running a layer agree up to rounding.

Axes: T packed tokens, D width, I intermediate width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from manyhead.encoder.bert_layer import BertLayer
from manyhead.encoder.dropout import keep_mask, kept_scale, mask_
from manyhead.packed import Route

aten = torch.ops.aten


class GradientSink(Protocol):
    """Takes the gradients of a layer's weights in the place of autograd."""

    @property
    def is_open(self) -> bool:
        """Whether those of the running backward are wanted."""
        ...

    def add_dense(self, modules: Sequence[nn.Linear], routes: Sequence[Route], inputs: Tensor, grads: Tensor) -> None:
        """``modules`` side by side were given ``inputs`` (T, F); ``grads`` (T, G) are of all they gave."""
        ...

    def add_norm(
        self,
        module: nn.LayerNorm,
        routes: Sequence[Route],
        inputs: Tensor,
        grads: Tensor,
        *,
        stats: tuple[Tensor, Tensor],
    ) -> None:
        """The norm was given ``inputs`` (T, D), whose means and scales are ``stats``; ``grads`` of what it gave."""
        ...


class LayerAttention(Protocol):
    """The attention of a layer: its forward, and its backward from what that keeps."""

    def attend(self, qkv: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """Queries, keys and values (T, 3D), side by side, to the context (T, D), and what the backward needs."""
        ...

    def backward(self, grads: Tensor, kept: Sequence[Tensor | None]) -> Tensor:
        """The gradient of queries, keys and values (T, 3D) from that of the context (T, D)."""
        ...


AttentionOf = Callable[[int, float, torch.dtype], LayerAttention]
"""From a number of heads, a dropout rate and the type of softmax to a layer's attention over the batch's sequences."""


@dataclass(frozen=True)
class Run:
    """How a layer runs: on which tokens, in which type of products, with dropout or not, and with which sink."""

    layer: BertLayer
    attention_of: AttentionOf
    routes: Sequence[Route]
    dtype: torch.dtype
    training: bool
    sink: GradientSink | None

    @cached_property
    def rate(self) -> float:
        """Dropout of what is added to the residual stream."""
        return self.layer.dropout if self.training else 0.0

    @cached_property
    def attention(self) -> LayerAttention:
        """The layer's attention."""
        layer = self.layer
        rate = layer.attention_dropout if self.training else 0.0
        return self.attention_of(layer.heads, rate, layer.out_norm.weight.dtype)


def run_layer(states: Tensor, run: Run) -> Tensor:
    """States (T, D) in the norms' type through a layer; to the same shape. There is no second derivative."""
    layer = run.layer
    modules = (*layer.dense, layer.out_norm, layer.output_norm)
    parameters = [parameter for module in modules for parameter in (module.weight, module.bias)]
    return cast("Tensor", _Layer.apply(states, run, parameters[0], *parameters[1:]))


class _Kept(NamedTuple):
    """What the backward needs, but for the attention's own.

    ``given``, ``context``, ``middle`` (T, D) and ``inner`` (T, I), which GELU is given, in the products' type;
    ``sums`` that the norms are given, fp32, with their means and scales; masks; weights in the products' type.
    """

    given: Tensor
    context: Tensor
    middle: Tensor
    inner: Tensor
    middle_sum: Tensor
    middle_mean: Tensor
    middle_scale: Tensor
    last_sum: Tensor
    last_mean: Tensor
    last_scale: Tensor
    out_keep: Tensor | None
    output_keep: Tensor | None
    qkv_weight: Tensor
    out_weight: Tensor
    inner_weight: Tensor
    output_weight: Tensor


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, run: Run, *parameters: Tensor) -> Tensor:
        del parameters  # named so that autograd knows them
        with torch.autocast(states.device.type, enabled=False):
            last, kept, attended = _forward(states, run)
        ctx.run = run
        ctx.save_for_backward(*kept, *attended)
        return last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        size = len(_Kept._fields)
        kept, attended = _Kept(*ctx.saved_tensors[:size]), ctx.saved_tensors[size:]
        found = _Gradients(ctx.run, ctx.needs_input_grad[2:])
        to_sum, to_qkv = _backward(grads[0], ctx.run, kept, attended, found)
        to_states = to_sum.add_(to_qkv @ kept.qkv_weight) if ctx.needs_input_grad[0] else None
        return to_states, None, *found.values


def _forward(states: Tensor, run: Run) -> tuple[Tensor, _Kept, list[Tensor | None]]:
    layer, dtype, rate = run.layer, run.dtype, run.rate
    qkv = (layer.query, layer.key, layer.value)
    qkv_weight = _cast_together([module.weight for module in qkv], dtype)
    qkv_bias = _cast_together([module.bias for module in qkv], dtype)
    out_weight, inner_weight, output_weight = (
        module.weight.to(dtype) for module in (layer.out, layer.intermediate, layer.output)
    )
    out_bias, inner_bias, output_bias = (
        module.bias.to(dtype) for module in (layer.out, layer.intermediate, layer.output)
    )
    given = states.to(dtype)
    context, attended = run.attention.attend(F.linear(given, qkv_weight, qkv_bias))

    out, out_keep = _drop(F.linear(context, out_weight, out_bias), rate)
    middle_sum = torch.add(states, out, alpha=_scale(rate, out))
    middle, middle_mean, middle_scale = _norm(layer.out_norm, middle_sum)
    inner_given = middle.to(dtype)
    inner = F.linear(inner_given, inner_weight, inner_bias)
    output, output_keep = _drop(F.linear(F.gelu(inner), output_weight, output_bias), rate)
    last_sum = torch.add(middle, output, alpha=_scale(rate, output))
    last, last_mean, last_scale = _norm(layer.output_norm, last_sum)
    kept = _Kept(
        given, context, inner_given, inner, middle_sum, middle_mean, middle_scale, last_sum, last_mean, last_scale,
        out_keep, output_keep, qkv_weight, out_weight, inner_weight, output_weight,
    )  # fmt: skip
    return last, kept, attended


def _backward(
    grads: Tensor, run: Run, kept: _Kept, attended: Sequence[Tensor | None], found: "_Gradients"
) -> tuple[Tensor, Tensor]:
    """The gradients of the states, but for what comes back through the attention; and of queries, keys and values."""
    layer, dtype, rate = run.layer, run.dtype, run.rate
    to_sum = found.norm(7, layer.output_norm, kept.last_sum, grads, stats=(kept.last_mean, kept.last_scale))
    to_output = _drop_backward(to_sum, kept.output_keep, rate, dtype)
    found.dense((5,), (layer.output,), F.gelu(kept.inner), to_output)
    to_inner = aten.gelu_backward(to_output @ kept.output_weight, kept.inner)
    found.dense((4,), (layer.intermediate,), kept.middle, to_inner)
    to_middle = to_sum.add_(to_inner @ kept.inner_weight)
    stats = (kept.middle_mean, kept.middle_scale)
    to_sum = found.norm(6, layer.out_norm, kept.middle_sum, to_middle, stats=stats)
    to_out = _drop_backward(to_sum, kept.out_keep, rate, dtype)
    found.dense((3,), (layer.out,), kept.context, to_out)
    to_qkv = run.attention.backward(to_out @ kept.out_weight, attended)
    found.dense((0, 1, 2), (layer.query, layer.key, layer.value), kept.given, to_qkv)
    return to_sum, to_qkv


class _Gradients:
    """The gradients of a layer's parameters that autograd wants, in their order; or none where a sink takes them."""

    def __init__(self, run: Run, wanted: Sequence[bool]) -> None:
        self._sink = run.sink if run.sink is not None and run.sink.is_open else None
        self._routes = run.routes
        self.values: list[Tensor | None] = [None] * len(wanted)
        self._wanted = wanted

    def dense(self, places: Sequence[int], modules: Sequence[nn.Linear], inputs: Tensor, grads: Tensor) -> None:
        """Those of dense layers side by side, the parameters 2p and 2p + 1 for each p of ``places``."""
        if self._sink is not None:
            self._sink.add_dense(modules, self._routes, inputs, grads)
        sizes = [module.out_features for module in modules]
        if any(self._wanted[2 * place] for place in places):
            for place, found in zip(places, (grads.t() @ inputs).split(sizes), strict=True):
                self.values[2 * place] = found if self._wanted[2 * place] else None
        if any(self._wanted[2 * place + 1] for place in places):
            for place, found in zip(places, grads.sum(0).split(sizes), strict=True):
                self.values[2 * place + 1] = found if self._wanted[2 * place + 1] else None

    def norm(
        self, place: int, module: nn.LayerNorm, inputs: Tensor, grads: Tensor, *, stats: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Those of a norm; returns the gradient of its inputs."""
        if self._sink is not None:
            self._sink.add_norm(module, self._routes, inputs, grads, stats=stats)
        wanted = [True, self._wanted[2 * place], self._wanted[2 * place + 1]]
        to_inputs, *self.values[2 * place : 2 * place + 2] = aten.native_layer_norm_backward(
            grads, inputs, module.normalized_shape, *stats, module.weight, module.bias, wanted
        )
        return to_inputs


def _cast_together(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Tensors one below the other, in ``dtype``."""
    sizes = [len(tensor) for tensor in tensors]
    together = torch.empty((sum(sizes), *tensors[0].shape[1:]), dtype=dtype, device=tensors[0].device)
    for place, tensor in zip(together.split(sizes), tensors, strict=True):
        place.copy_(tensor)
    return together


def _norm(module: nn.LayerNorm, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised states, their means and the inverse of their deviations (T, 1)."""
    return torch.native_layer_norm(states, module.normalized_shape, module.weight, module.bias, module.eps)


def _scale(rate: float, like: Tensor) -> float:
    return kept_scale(rate, like.device) if rate else 1.0


def _drop(branch: Tensor, rate: float) -> tuple[Tensor, Tensor | None]:
    """What dropout leaves of ``branch``, which it overwrites, before it is scaled; and the mask."""
    if not rate:
        return branch, None
    keep = keep_mask(rate, torch.empty_like(branch, dtype=torch.int16))
    return mask_(branch, keep), keep


def _drop_backward(grads: Tensor, keep: Tensor | None, rate: float, dtype: torch.dtype) -> Tensor:
    """The gradient of a branch that dropout is on, in ``dtype``, from that of the sum that it is added to."""
    if keep is None:
        return grads.to(dtype)
    if dtype == grads.dtype:
        return mask_(grads * _scale(rate, grads), keep)
    return mask_(grads.to(dtype).mul_(_scale(rate, grads)), keep)
