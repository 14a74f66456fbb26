"""Projected attention layers (Stickland and Murray 2019): attention of a small width d that each task has of its own.

All tasks' tokens go through one attention over the packed sequences; only the dense layers around it differ by task.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyhead.encoder import PalParallelExperts, PalTopExperts
from manyhead.encoder.attention import packed_attention
from manyhead.encoder.flow import Flow, current_flow
from manyhead.encoder.layers import bert_layers, init_as_bert
from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.encoder.per_task import PerTask
from manyhead.encoder.seeding import seed_part
from manyhead.encoder.trunk import Trunk, packed_encoder

STICKLAND_LAYERS = 6
"""Layers of Stickland and Murray's own variant on top of the encoder."""


class Pal(nn.Module):
    """One task's parts: ``down`` from D to d and ``up`` from d to D, and in each of ``layers`` ``qkv``.

    With ``closed`` layers each has an output projection ``out`` and a ``norm`` as well.
    """

    def __init__(self, width: int, small: int, layers: int, *, closed: bool = False) -> None:
        super().__init__()
        self.down = nn.Linear(width, small)
        self.qkv = nn.ModuleList(nn.Linear(small, 3 * small) for _ in range(layers))
        self.out = nn.ModuleList(nn.Linear(small, small) for _ in range(layers if closed else 0))
        self.norm = nn.ModuleList(nn.LayerNorm(small) for _ in range(layers if closed else 0))
        self.up = nn.Linear(small, width)


class PalRunner:
    """Runs each task's parts on its own tokens. ``drop`` is the encoder's own attention dropout, for its rate."""

    def __init__(self, pals: Mapping[str, Pal], heads: int, drop: nn.Module) -> None:
        self.pals = pals
        self.heads = heads
        self.drop: Any = drop

    def each(self, part: Callable[[Pal], nn.Module], rows: Tensor, flow: Flow) -> Tensor:
        """Rows (T, F) through the ``part`` of their task's expert, (T, G)."""
        return torch.cat([part(self.pals[task])(rows[start:stop]) for task, start, stop in flow.routes_of_all()])

    def attend(self, layer: int, rows: Tensor, flow: Flow) -> Tensor:
        """Attention within each sequence, without an output projection: rows (T, d) to (T, d)."""
        states = self.each(lambda pal: pal.qkv[layer], rows, flow)
        # Not len(rows): that is one number to torch's exporter, whatever the batch.
        q, k, v = (part.view(1, rows.shape[0], self.heads, -1).transpose(1, 2) for part in states.chunk(3, dim=1))
        # What pooling reads of the encoder's attention is the encoder's alone.
        layout = replace(flow.layout, received=None)
        found, _ = packed_attention(self.drop, q, k, v, None, packed_layout=layout, dropout=self.drop.p)
        return found.reshape(rows.shape)


class OnTop:
    """One layer behind the encoder, with an outer residual (S1): x + up(attention(down(x)))."""

    def __init__(self, runner: PalRunner) -> None:
        self.runner = runner

    def __call__(self, states: Tensor, flow: Flow) -> Tensor:
        """States (T, D) to (T, D)."""
        run = self.runner
        small = run.each(lambda pal: pal.down, states, flow)
        return states + run.each(lambda pal: pal.up, run.attend(0, small, flow), flow)


class SixOnTop:
    """Layers behind the encoder of which each is LN(x + out(attention(x))) in width d, without an outer residual."""

    def __init__(self, runner: PalRunner) -> None:
        self.runner = runner

    def __call__(self, states: Tensor, flow: Flow) -> Tensor:
        """States (T, D) to (T, D)."""
        run = self.runner
        small = run.each(lambda pal: pal.down, states, flow)
        for layer in range(STICKLAND_LAYERS):
            found = run.attend(layer, small, flow)
            small = small + run.each(lambda pal, layer=layer: pal.out[layer], found, flow)
            small = run.each(lambda pal, layer=layer: pal.norm[layer], small, flow)
        return run.each(lambda pal: pal.up, small, flow)


class Beside:
    """A projected attention beside one layer: gelu(up(attention(down(x)))) of its input x goes into its last norm.

    Its two methods are hooks before the layer and before that norm.
    """

    def __init__(self, runner: PalRunner, layer: int) -> None:
        self.runner = runner
        self.layer = layer

    def keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Notes the layer's input (1, T, D)."""
        del module
        current_flow().inputs[self.layer] = inputs[0]

    def add(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        """Adds to the sum (1, T, D) that the norm is given."""
        del module
        run, flow = self.runner, current_flow()
        small = run.each(lambda pal: pal.down, flow.inputs.pop(self.layer)[0], flow)
        found = run.each(lambda pal: pal.up, run.attend(self.layer, small, flow), flow)
        return (inputs[0] + F.gelu(found),)


def build_top(options: PalTopExperts, trunk: Trunk, tasks: Sequence[str], seed: int) -> Trunk:
    """A projected attention behind the pooled layer: one layer (S1), or six (Stickland and Murray's "top")."""
    encoder = packed_encoder(trunk, options.kind)
    six = options.variant == "stickland"
    pals = _pals(encoder, tasks, seed, options.width, layers=STICKLAND_LAYERS if six else 1, closed=six)
    runner = PalRunner(pals, options.heads, _attention_dropout(encoder))
    encoder.behind.append(SixOnTop(runner) if six else OnTop(runner))
    return replace(trunk, experts=PerTask(pals))


def build_parallel(options: PalParallelExperts, trunk: Trunk, tasks: Sequence[str], seed: int) -> Trunk:
    """A projected attention beside each layer; ``down`` and ``up`` are the same in all layers of a task."""
    encoder = packed_encoder(trunk, options.kind)
    layers = bert_layers(encoder, options.kind)
    pals = _pals(encoder, tasks, seed, options.width, layers=len(layers))
    runner = PalRunner(pals, options.heads, _attention_dropout(encoder))
    for number, layer in enumerate(layers):
        beside = Beside(runner, number)
        layer.register_forward_pre_hook(beside.keep)
        layer.get_submodule("output.LayerNorm").register_forward_pre_hook(beside.add)
    return replace(trunk, experts=PerTask(pals))


def _pals(
    encoder: PackedEncoder, tasks: Sequence[str], seed: int, small: int, *, layers: int, closed: bool = False
) -> dict[str, Pal]:
    pals: dict[str, Pal] = {}
    for task in tasks:
        seed_part(seed, "experts", task)
        pals[task] = Pal(encoder.width, small, layers, closed=closed)
        init_as_bert(pals[task], encoder)
    return pals


def _attention_dropout(encoder: PackedEncoder) -> nn.Module:
    return bert_layers(encoder, "encoder.experts")[0].get_submodule("attention.self.dropout")
