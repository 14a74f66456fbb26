"""L1: absolute values of the weights."""

from collections.abc import Sequence

import torch
from torch import nn

from manyhead.regularisers import L1
from manyhead.regularisers.base import Regulariser


class L1Penalty(Regulariser):
    """Adds weight * sign(w), the gradient of weight * sum |w|, to the gradients of weight matrices.

    Biases and norms (vectors) and embeddings are left alone, and so is what has no gradient. It acts behind balancing
    and before clipping of the whole gradient; the losses that are logged are without it.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    @torch.no_grad()
    def adjust(self, model: nn.Module) -> None:
        """See `Regulariser.adjust`."""
        embeddings = {
            each for module in model.modules() if isinstance(module, nn.Embedding) for each in module.parameters()
        }
        for parameter in model.parameters():
            if parameter.ndim > 1 and parameter.grad is not None and parameter not in embeddings:
                parameter.grad.add_(parameter.sign(), alpha=self.weight)


def build(options: L1, tasks: Sequence[str], model: nn.Module, total_steps: int) -> Regulariser:
    """See `L1Penalty`."""
    del tasks, model, total_steps
    return L1Penalty(options.weight)
