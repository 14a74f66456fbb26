"""Running a transformers encoder over packed sequences, with a self-test and a fallback.

Families that honour the attention interface run all sequences in one forward. `PackedEncoder.self_test` compares that
with one-by-one runs once after loading; where they differ, sequences of equal length run together instead: slower,
always correct.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from manyhead.encoder.attention import NAME, PackedLayout, packed_layout
from manyhead.encoder.bert_layer import bert_layers_of
from manyhead.encoder.flow import Flow, flowing
from manyhead.encoder.fused_attention import Attention
from manyhead.encoder.fused_layer import AttentionOf, GradientSink, Run, run_layer
from manyhead.encoder.slots import Slots, slots_of
from manyhead.errors import UsageError
from manyhead.packed import Route, offsets_of

POSITIONS_AFTER_PADDING = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "roberta-prelayernorm", "esm", "xmod"}
)
"""Model types whose position ids start behind the padding token's id."""

TOLERANCE = 1e-4
"""Largest difference, in fp32, between packed and one-by-one that the self-test accepts."""


_ENTRANCES = ("embeddings_project", "encoder.embedding_hidden_mapping_in", "embeddings")
"""Where the states of width D that enter the first layer come from; the first name that a model has counts."""


@dataclass(frozen=True)
class TokenStates:
    """The pooled layer's states: ``hidden`` (T, D); ``received`` (T,) attention each token receives, where asked."""

    hidden: Tensor
    received: Tensor | None

    def part(self, start: int, stop: int) -> Self:
        """Those of the tokens ``start`` to ``stop``."""
        received = None if self.received is None else self.received[start:stop]
        return type(self)(self.hidden[start:stop], received)


class PackedEncoder(nn.Module):
    """A transformers encoder that takes packed sequences.

    ``layer`` is the layer whose states are returned (-1 the last). ``capture`` asks for received attention.
    ``packed`` is False where equal-length batches are used. ``behind`` run on the states (T, D) of a packed forward.

    Layers of BERT's kind, as long as nobody has put hooks on them, run as one node of the graph each, unless ``fused``
    is False; ``sink`` then takes the gradients of their weights, and ``rounded`` says whether `Slots` are rounded up.
    """

    def __init__(self, model: PreTrainedModel, *, layer: int = -1, capture: bool = False, packed: bool = True) -> None:
        super().__init__()
        self.model = model
        self.use_packed(packed)
        self.capture = capture
        self.fused = True
        self.rounded = True
        self.sink: GradientSink | None = None
        self._layers = bert_layers_of(model)
        self.behind: list[Callable[[Tensor, Flow], Tensor]] = []
        config: Any = model.config
        self.n_layers = int(config.num_hidden_layers)
        self.layer = layer if layer >= 0 else self.n_layers + 1 + layer
        self.width = int(config.hidden_size)
        self._arguments = frozenset(inspect.signature(model.forward).parameters)
        self.first_position = int(config.pad_token_id) + 1 if config.model_type in POSITIONS_AFTER_PADDING else 0
        self.has_segments = "token_type_ids" in self._arguments and int(getattr(config, "type_vocab_size", 0) or 0) > 1

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        lengths: Sequence[int],
        *,
        routes: Sequence[Route] = (),
        noise: Tensor | None = None,
        layer: int | None = None,
    ) -> TokenStates:
        """``input_ids``, ``segment_ids`` (T,) of sequences of ``lengths`` to states (T, D).

        ``routes`` say which tokens are which task's, for experts. ``noise`` (T, D) is added to the states that enter
        the first layer. ``layer`` replaces the encoder's own.
        """
        layer = self.layer if layer is None else layer
        if not self.packed:
            return self._run_equal_lengths(input_ids, segment_ids, lengths, noise, layer)
        flow = Flow(packed_layout(lengths, input_ids.device, capture=self.capture), lengths, routes)
        with flowing(flow):
            return self._run_packed(input_ids, segment_ids, flow, noise, layer)

    @property
    def runs_fused(self) -> bool:
        """Whether the next packed forward runs layers as one node each."""
        return (
            self.fused
            and self.packed
            and self._layers is not None
            and not self.capture
            and not any(layer.is_changed for layer in self._layers)
        )

    def fused_modules(self) -> frozenset[nn.Module]:
        """The modules whose work a fused forward does in their place."""
        if not self.runs_fused or self._layers is None:
            return frozenset()
        return frozenset(module for layer in self._layers for module in layer.modules)

    def use_packed(self, packed: bool) -> None:
        """Chooses between one packed forward and one forward for each length."""
        self.packed = packed
        self.model.set_attn_implementation(NAME if packed else "eager")

    def sparse_embedding_gradients(self, sparse: bool) -> None:
        """Whether the word embeddings' gradient holds only the rows of a step's tokens."""
        words = self.model.get_input_embeddings()
        if isinstance(words, nn.Embedding):
            words.sparse = sparse

    def depths(self, prefix: str) -> dict[str, int]:
        """Parameter names, each behind ``prefix``, to layers: 0 the embeddings, ``n_layers`` the last."""
        found: dict[str, int] = {}
        for name, _ in self.named_parameters():
            number = re.search(r"\.(?:layers?|block)\.(\d+)\.", name)
            below = "embed" in name
            found[prefix + name] = int(number[1]) + 1 if number else (0 if below else self.n_layers)
        return found

    def self_test(self, max_tokens: int) -> float:
        """Largest difference between packed and one-by-one states on random tokens, in evaluation mode."""
        generator = torch.Generator().manual_seed(0)
        lengths = [3, min(max_tokens, 160), 17, 9, 9]
        lengths = [min(length, max_tokens) for length in lengths]
        vocabulary = int(cast("Any", self.model.config).vocab_size)
        ids = torch.randint(min(5, vocabulary - 1), vocabulary, (sum(lengths),), generator=generator)
        segments = torch.zeros_like(ids)
        training = self.training
        self.eval()
        with torch.no_grad():
            self.use_packed(False)
            expected = torch.cat([self(part, part * 0, [len(part)]).hidden for part in ids.split(lengths)])
            self.use_packed(True)
            found = self(ids, segments, lengths).hidden
        self.train(training)
        return float((found - expected).abs().max())

    @property
    def word_embeddings(self) -> Tensor:
        """The word embeddings (V, E)."""
        words: Any = self.model.get_input_embeddings()
        return words.weight

    def _run_packed(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        flow: Flow,
        noise: Tensor | None,
        layer: int,
    ) -> TokenStates:
        device = input_ids.device
        arguments: dict[str, Any] = {"input_ids": input_ids[None], "packed_layout": flow.layout}
        if "position_ids" in self._arguments:
            arguments["position_ids"] = _positions(flow.lengths, device)[None] + self.first_position
        if self.has_segments:
            arguments["token_type_ids"] = segment_ids[None]
        with self._adding(None if noise is None else noise[None]):
            if self.runs_fused:
                del arguments["packed_layout"]
                slots = self._slots(flow, len(input_ids), device)
                hidden = self._run_fused(arguments, partial(Attention, slots.layout), slots, layer)
            else:
                output = self.model(**arguments, output_hidden_states=layer != self.n_layers)
                hidden = self._states(output, layer)[0]
        for run in self.behind:
            hidden = run(hidden, flow)
        received = flow.layout.received
        return TokenStates(hidden, received[max(0, layer - 1)] if received else None)

    def run_with(
        self,
        attention_of: AttentionOf,
        input_ids: Tensor,
        segment_ids: Tensor,
        positions: Tensor,
        routes: Sequence[Route],
    ) -> Tensor:
        """States (T, D) with any attention over the tokens; ``positions`` (T,) count from 0 in each sequence.

        Nothing is read on the host. Raises ValueError where the encoder does not run fused.
        """
        if not self.runs_fused:
            raise ValueError("the encoder does not run its layers as one node each")
        arguments = {"input_ids": input_ids[None], "position_ids": positions[None] + self.first_position}
        if self.has_segments:
            arguments["token_type_ids"] = segment_ids[None]
        as_they_are = Slots(len(input_ids), None, PackedLayout((), None), routes)
        return self._run_fused(arguments, attention_of, as_they_are, self.layer)

    def _slots(self, flow: Flow, tokens: int, device: torch.device) -> Slots:
        if not self.rounded:
            return Slots(tokens, None, flow.layout, flow.routes)
        return slots_of(flow.layout, tokens, flow.routes, by_part=self.sink is not None, device=device)

    def _run_fused(self, arguments: dict[str, Tensor], attention_of: AttentionOf, slots: Slots, layer: int) -> Tensor:
        """States (T, D) of ``layer``; layers above it do not run."""
        assert self._layers is not None
        model: Any = self.model
        states = model.embeddings(**arguments)
        if hasattr(model, "embeddings_project"):
            states = model.embeddings_project(states)
        first = self._layers[0]
        hidden = states[0].to(first.out_norm.weight.dtype)
        dtype = _products_dtype(hidden.device, first.query.weight.dtype)
        if self.sink is not None and torch.is_grad_enabled() and not hidden.requires_grad:
            hidden = hidden.detach().requires_grad_()  # embeddings are frozen: the layers' gradients are asked for here
        hidden = slots.spread(hidden)
        for each in self._layers[:layer]:
            hidden = run_layer(hidden, Run(each, attention_of, slots.routes, dtype, self.training, self.sink))
        return slots.collect(hidden)

    def _run_equal_lengths(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        lengths: Sequence[int],
        noise: Tensor | None,
        layer: int,
    ) -> TokenStates:
        starts = torch.tensor(offsets_of(lengths)[:-1], device=input_ids.device)
        all_lengths = torch.tensor(list(lengths), device=input_ids.device)
        places: list[Tensor] = []
        states: list[Tensor] = []
        attentions: list[Tensor] = []
        for length in sorted(set(lengths)):
            rows = starts[all_lengths == length][:, None] + torch.arange(length, device=input_ids.device)
            arguments: dict[str, Any] = {"input_ids": input_ids[rows]}
            if "attention_mask" in self._arguments:
                arguments["attention_mask"] = torch.ones_like(rows)
            if self.has_segments:
                arguments["token_type_ids"] = segment_ids[rows]
            with self._adding(None if noise is None else noise[rows]):
                output = self.model(
                    **arguments, output_hidden_states=layer != self.n_layers, output_attentions=self.capture
                )
            places.append(rows.flatten())
            states.append(self._states(output, layer).flatten(0, 1))
            if self.capture:
                attentions.append(output.attentions[max(0, layer - 1)].mean(dim=(1, 2)).flatten())
        order = torch.cat(places).argsort()
        received = torch.cat(attentions)[order] if attentions else None
        return TokenStates(torch.cat(states)[order], received)

    def _states(self, output: Any, layer: int) -> Tensor:
        return output.last_hidden_state if layer == self.n_layers else output.hidden_states[layer]

    @contextmanager
    def _adding(self, noise: Tensor | None) -> Iterator[None]:
        """Adds ``noise`` to the states that enter the first layer while the context lasts."""
        if noise is None:
            yield
            return

        def add(module: nn.Module, inputs: object, states: Tensor) -> Tensor:
            del module, inputs
            return states + noise.to(states.dtype)

        hook = self._entrance().register_forward_hook(add)
        try:
            yield
        finally:
            hook.remove()

    def _entrance(self) -> nn.Module:
        """The module whose output enters the first layer: the embeddings, or what brings them to width D."""
        for name in _ENTRANCES:
            with suppress(AttributeError):
                return self.model.get_submodule(name)
        kind = self.model.config.model_type
        raise UsageError(
            f"the encoder ({kind}) has no embedding module that noise could be added behind; expected a BERT-family "
            "encoder, such as bert, roberta, electra, distilbert, albert or modernbert; use another checkpoint, or "
            "leave out what adds noise"
        )


def _products_dtype(device: torch.device, otherwise: torch.dtype) -> torch.dtype:
    """The type of matrix products where autocast is on."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return otherwise


def _positions(lengths: Sequence[int], device: torch.device) -> Tensor:
    """0, 1, ... within each sequence: (T,)."""
    counts = torch.tensor(list(lengths))
    starts = torch.tensor(offsets_of(lengths)[:-1])
    return (torch.arange(int(counts.sum())) - starts.repeat_interleave(counts)).to(device)
