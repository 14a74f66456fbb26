"""SimCSE: vectors of like texts together, those of other texts apart (Gao 2021)."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from manyhead.data.task_data import TaskData
from manyhead.errors import UsageError
from manyhead.objectives.mnr import ranking_losses
from manyhead.packed import PackedModel
from manyhead.pretraining import PairSimCSE, SimCSE
from manyhead.pretraining.base import Pretraining, TextFacts
from manyhead.pretraining.texts import Ids, pack_texts, texts_of
from manyhead.recipe.schema import Task
from manyhead.schedules.base import Part

Pairs = Callable[[Part, TaskData], Sequence[tuple[Ids, Ids]]]
"""The like texts among the examples of a part."""


class Contrastive(Pretraining):
    """Mean over pairs i of -log(exp(s_ii) / sum_j exp(s_ij)), s_ij = cos(u_i, v_j) / temperature (equation 1).

    The sum runs over the pairs j of the part whose second text is neither text of pair i, and i itself. (S3 prints a
    denominator that compares j with j.) All parts are encoded in one packed batch.
    """

    def __init__(self, pairs: Pairs, temperature: float, projection: nn.Module) -> None:
        super().__init__()
        self.pairs = pairs
        self.temperature = temperature
        self.projection = projection

    def losses(
        self, model: PackedModel, parts: Sequence[Part], data: Mapping[str, TaskData], *, segment_ids: bool
    ) -> dict[str, Tensor]:
        """See `Pretraining.losses`. Texts alone are of one segment."""
        del segment_ids
        losses = {part.task: self.nothing() for part in parts}
        pairs = {part.task: found for part in parts if (found := self.pairs(part, data[part.task]))}
        if not pairs:
            return losses
        batch = pack_texts(pairs).to(self.device)
        vectors = self.projection(model.embed(batch))
        for part in batch.parts:
            u, v = vectors[part.sequences].unbind(1)
            candidates = _candidates(pairs[part.task]).to(u.device)
            losses[part.task] = ranking_losses(u, v, 1 / self.temperature, candidates).mean()
        return losses


def build(options: SimCSE, facts: TextFacts, model: PackedModel) -> Pretraining:
    """Each text with itself: dropout makes two vectors of it. Empty texts are left out.

    The projection (dense D to D, tanh) starts from weights of deviation .02 and biases of 0, as BERT's own layers do.
    """

    def pairs(part: Part, data: TaskData) -> list[tuple[Ids, Ids]]:
        examples = texts_of(data.tokens, part.examples, facts.special, is_pair=facts.tasks[part.task].is_pair)
        return [(text, text) for texts in examples for text in texts if not facts.special.is_empty(text)]

    return Contrastive(pairs, options.temperature, _projection(model.width) if options.projection else nn.Identity())


def build_pairs(options: PairSimCSE, facts: TextFacts, model: PackedModel) -> Pretraining:
    """The pairs of class 1 of two, and those whose score is high enough; there is no projection.

    Equals sentence-transformers' MultipleNegativesRankingLoss at scale 1 / temperature where no text is there twice.
    Tasks of single texts or more classes have no such pairs. Raises `UsageError` for scores without a range.
    """
    del model
    lowest = {name: _lowest_target(name, task, options.minimum_score) for name, task in facts.tasks.items()}

    def pairs(part: Part, data: TaskData) -> list[tuple[Ids, Ids]]:
        threshold = lowest[part.task]
        if threshold is None:
            return []
        assert data.targets is not None
        like = part.examples[data.targets[part.examples] >= threshold]
        return [(u, v) for u, v in texts_of(data.tokens, like, facts.special, is_pair=True)]

    return Contrastive(pairs, options.temperature, nn.Identity())


def _lowest_target(name: str, task: Task, share: float) -> np.float32 | None:
    """The lowest target of a pair of like meaning; None where a task has none."""
    if not task.is_pair or (task.kind == "classification" and len(task.label_names) != 2):
        return None
    if task.kind == "classification":
        return np.float32(1)
    if task.range is None:
        raise UsageError(
            f"tasks.{name}.range: is missing, and simcse_pairs needs it; expected the lowest and highest score, such "
            "as [0, 5]; add it, or leave the task out of the stage's tasks"
        )
    lowest, highest = task.range
    return np.float32(lowest + share * (highest - lowest))


def _projection(width: int) -> nn.Module:
    dense = nn.Linear(width, width)
    nn.init.normal_(dense.weight, std=0.02)
    nn.init.zeros_(dense.bias)
    return nn.Sequential(dense, nn.Tanh())


def _candidates(pairs: Sequence[tuple[Ids, Ids]]) -> Tensor:
    """Whether pair j may stand beside pair i: (E, E)."""
    numbers: dict[bytes, int] = {}
    texts = torch.tensor([[numbers.setdefault(text.tobytes(), len(numbers)) for text in pair] for pair in pairs])
    u, v = texts.unbind(1)
    others = (v[None] != v[:, None]) & (v[None] != u[:, None])
    return others | torch.eye(len(pairs), dtype=torch.bool)
