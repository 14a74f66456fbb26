"""The interface of pretraining: a stage's losses from the tasks' texts, whatever their heads do."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from manyhead.data.task_data import TaskData
from manyhead.packed import PackedModel
from manyhead.pretraining.texts import SpecialTokens
from manyhead.recipe.schema import Task
from manyhead.schedules.base import Part


@dataclass(frozen=True)
class TextFacts:
    """What pretraining has to know of a stage.

    ``tasks`` that it trains; ``vocabulary``: how many tokens the tokenizer has.
    """

    tasks: Mapping[str, Task]
    vocabulary: int
    special: SpecialTokens

    @classmethod
    def of(cls, tokenizer: Tokenizer, tasks: Mapping[str, Task]) -> Self:
        """The facts of ``tasks`` whose texts went through ``tokenizer``, which neither pads nor truncates."""
        return cls(tasks, tokenizer.get_vocab_size(with_added_tokens=True), SpecialTokens.of(tokenizer))


class Pretraining(nn.Module, ABC):
    """Builds its own batches from the parts of a step. Its parameters serve training only and are not shipped."""

    _zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_zero", torch.zeros(()), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the module was moved to."""
        return self._zero.device

    def nothing(self) -> Tensor:
        """The loss of a part without anything to learn: 0, which can be differentiated and gives no gradient."""
        return self._zero.clone().requires_grad_()

    @abstractmethod
    def losses(
        self, model: PackedModel, parts: Sequence[Part], data: Mapping[str, TaskData], *, segment_ids: bool
    ) -> dict[str, Tensor]:
        """The mean loss of each part's examples: scalars by task. A part without anything to learn gives 0."""
        ...
