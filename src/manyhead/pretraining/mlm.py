"""Masked language modelling on the tasks' own texts (BERT, Devlin 2019)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyhead.batching import pack
from manyhead.data.task_data import TaskData
from manyhead.errors import UsageError
from manyhead.packed import PackedModel
from manyhead.pretraining import MaskedLanguageModel
from manyhead.pretraining.base import Pretraining, TextFacts
from manyhead.schedules.base import Part

MASKED, RANDOM = 0.8, 0.1
"""Shares of the guessed tokens that are hidden behind the mask token, and replaced by a random one; others stay."""


class MaskedLanguageModelling(Pretraining):
    """Mean over guessed tokens of -log p(token), p = softmax(W f(h) + b).

    h is the last layer's state, f = LayerNorm(GELU(dense)) of width E and b are new, W (V, E) are the encoder's word
    embeddings. Pairs are read as the task joins them.
    """

    def __init__(self, facts: TextFacts, model: PackedModel, mask: int, probability: float) -> None:
        super().__init__()
        rows, width = model.word_embeddings().shape
        self.dense = nn.Linear(model.width, width)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(rows))
        self.vocabulary = facts.vocabulary
        self.special = torch.tensor(sorted(facts.special.ids))
        self.mask = mask
        self.probability = probability

    def losses(
        self, model: PackedModel, parts: Sequence[Part], data: Mapping[str, TaskData], *, segment_ids: bool
    ) -> dict[str, Tensor]:
        """See `Pretraining.losses`."""
        batch = pack(parts, {part.task: data[part.task].tokens for part in parts}, segment_ids=segment_ids)
        hidden, places = self.hide(batch.input_ids)
        ends = torch.searchsorted(places, torch.tensor([route.stop for route in batch.routes])).tolist()
        targets = batch.input_ids[places].to(self.device)
        states = model.token_states(replace(batch, input_ids=hidden).to(self.device))
        logits = self.logits(states[places.to(states.device)], model.word_embeddings())
        losses = F.cross_entropy(logits, targets, reduction="none").split(np.diff([0, *ends]).tolist())
        return {route.task: own.sum() / max(len(own), 1) for route, own in zip(batch.routes, losses, strict=True)}

    def hide(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (T,) to those that the encoder sees (T,), and the places (M,) of the tokens to guess, ascending.

        Each token that is not special is guessed with the same probability, whatever becomes of the others; a short
        text may have none. Draws from torch's generator, on the CPU.
        """
        guessed = (torch.rand(ids.shape) < self.probability) & ~torch.isin(ids, self.special)
        fate = torch.rand(ids.shape)
        others = torch.randint(self.vocabulary, ids.shape)
        replaced = torch.where(fate < MASKED, self.mask, torch.where(fate < MASKED + RANDOM, others, ids))
        return torch.where(guessed, replaced, ids), guessed.nonzero()[:, 0]

    def logits(self, states: Tensor, words: Tensor) -> Tensor:
        """States (M, D) of the tokens to guess and word embeddings (V, E) to logits (M, V)."""
        return F.linear(self.norm(F.gelu(self.dense(states))), words, self.bias)


def build(options: MaskedLanguageModel, facts: TextFacts, model: PackedModel) -> Pretraining:
    """See `MaskedLanguageModelling`; raises `UsageError` where the tokenizer has no mask token."""
    if facts.special.mask is None:
        raise UsageError(
            "stages.pretraining: the encoder's tokenizer has no mask token; expected one such as [MASK] or <mask>; "
            "use another checkpoint, or leave mlm out"
        )
    return MaskedLanguageModelling(facts, model, facts.special.mask, options.probability)
