"""Low-rank experts (S3): W becomes W0 + (alpha / r) B A, with A and B of each task's own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyhead.encoder import LowRankExperts
from manyhead.encoder.flow import current_flow
from manyhead.encoder.layers import bert_layers
from manyhead.encoder.per_task import PerTask
from manyhead.encoder.seeding import seed_part
from manyhead.encoder.trunk import Trunk, packed_encoder
from manyhead.packed import Route

MATRICES = {"attention": "attention.output.dense", "intermediate": "intermediate.dense", "output": "output.dense"}
"""Dense matrices of a layer that get an expert: name in the expert to module in the layer."""


class LowRank(nn.Module):
    """B A: ``down`` (A) from F to ``rank``, ``up`` (B) from there to G, which is 0 at first."""

    def __init__(self, dense: nn.Linear, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, dense.in_features))
        self.up = nn.Parameter(torch.zeros(dense.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))


class Update:
    """Adds each token's own task's (alpha / r) B A x to what a dense layer gives: a forward hook."""

    def __init__(self, pairs: Mapping[str, LowRank], scale: float) -> None:
        self.pairs = pairs
        self.scale = scale

    def __call__(self, dense: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """``inputs`` (1, T, F) and ``output`` (1, T, G) to (1, T, G)."""
        del dense
        routes = current_flow().routes_of_all()
        matrices = [matrix for task, _, _ in routes for matrix in self.pairs[task].parameters()]
        return cast("Tensor", _Updated.apply(output, inputs[0], routes, self.scale, *matrices))


class _Updated(torch.autograd.Function):
    """The product of `Update` in the output's type, as one node of the graph.

    ``matrices`` are A (r, F) and B (G, r) of each route. Routes are short and of ever new lengths: what a step costs
    is in the number of operations and copies, which autograd would double.
    """

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, states: Tensor, routes: Sequence[Route], scale: float, *matrices: Tensor
    ) -> Tensor:
        rows = states[0].to(output.dtype)
        factors = [matrix.to(output.dtype) for matrix in matrices]
        updated = output.clone()
        small: list[Tensor] = []
        for (_, start, stop), down, up in zip(routes, factors[::2], factors[1::2], strict=True):
            small.append(F.linear(rows[start:stop], down).mul_(scale))
            updated[0, start:stop].addmm_(small[-1], up.t())
        ctx.save_for_backward(rows, *small, *factors)
        ctx.routes, ctx.scale, ctx.dtype = routes, scale, states.dtype
        return updated

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("low-rank experts have no second derivative")
        rows, *saved = ctx.saved_tensors
        small, factors = saved[: len(ctx.routes)], saved[len(ctx.routes) :]
        to_states = torch.empty_like(rows, dtype=ctx.dtype) if ctx.needs_input_grad[1] else None
        to_matrices: list[Tensor | None] = []
        for number, (_, start, stop) in enumerate(ctx.routes):
            grad = grads[0][0, start:stop]
            to_small = (grad @ factors[2 * number + 1]).mul_(ctx.scale)
            to_matrices += [to_small.t() @ rows[start:stop], (small[number].t() @ grad).t()]
            if to_states is not None:
                to_states[start:stop] = to_small @ factors[2 * number]
        return grads[0], None if to_states is None else to_states[None], None, None, *to_matrices


def build(options: LowRankExperts, trunk: Trunk, tasks: Sequence[str], seed: int) -> Trunk:
    """Experts on the attention's output, the intermediate and the output matrix of each layer."""
    layers = bert_layers(packed_encoder(trunk, options.kind), options.kind)
    experts: dict[str, nn.Module] = {}
    by_layer: list[dict[str, dict[str, LowRank]]] = [{name: {} for name in MATRICES} for _ in layers]
    for task in tasks:
        seed_part(seed, "experts", task)
        own = nn.ModuleList()
        for layer, pairs in zip(layers, by_layer, strict=True):
            matrices = nn.ModuleDict()
            for name, place in MATRICES.items():
                dense = layer.get_submodule(place)
                assert isinstance(dense, nn.Linear)
                pairs[name][task] = LowRank(dense, options.rank)
                matrices[name] = pairs[name][task]
            own.append(matrices)
        experts[task] = own
    for layer, pairs in zip(layers, by_layer, strict=True):
        for name, place in MATRICES.items():
            update = Update(pairs[name], options.alpha / options.rank)
            # Ahead of other hooks, which read what the matrix gives.
            layer.get_submodule(place).register_forward_hook(update, prepend=True)
    return replace(trunk, experts=PerTask(experts), freezes_encoder=options.freeze)
