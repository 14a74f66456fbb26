"""The related head: another task's probabilities through a learned dense layer."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from manyhead.heads import RelatedHead
from manyhead.objectives.base import Objective


class Related(nn.Module):
    """W p + b, p the class probabilities that another task's head gives the same vectors (S2's later work).

    The other head's parameters are its own task's: this one's losses go through them to the vectors and leave them
    alone. `relate` has to be called once before the first pass.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self._other: tuple[nn.Module, Objective] | None = None

    def relate(self, head: nn.Module, objective: Objective, classes: int) -> None:
        """Reads ``head`` from here on, whose outputs mean to ``objective`` the probabilities of ``classes`` classes."""
        self.map = nn.Linear(classes, self.outputs)
        self._other = (head, objective)

    def forward(self, vectors: Tensor) -> Tensor:
        """Pooled vectors (E, n, D) to outputs (E, O)."""
        assert self._other is not None
        head, objective = self._other
        fixed = {name: tensor.detach() for name, tensor in head.state_dict(keep_vars=True).items()}
        logs = objective.log_probabilities(cast("Tensor", functional_call(head, fixed, vectors)))
        assert logs is not None
        return self.map(torch.exp(logs))


def build(options: RelatedHead, width: int, outputs: int, *, siamese: bool) -> nn.Module:
    """See `Related`."""
    del options, width, siamese
    return Related(outputs)
