"""GradNorm: weights that learn to give the tasks gradients of like length."""

from collections.abc import Mapping

import torch
from torch import Tensor

from manyhead.balancing import GradNormBalancing
from manyhead.balancing.base import Remembering, Signals
from manyhead.recipe.schema import Task

_WEIGHTS, _FIRST_LOSSES = range(2)


class GradNorm(Remembering):
    """Weights w_k that follow the slope of sum_k |w_k |g_k| - mean_j(w_j |g_j|) r_k^alpha| (Chen 2018, eqs. 1 and 2).

    r_k is L_k over its first value, divided by the tasks' mean of that. Differs in that gradients are those over all
    shared parameters, and that the slope is divided by their mean length, which makes the rate independent of it. After
    each step the weights of its tasks are scaled to keep their sum: K over all. The memory's rows are weights and first
    losses, 0 where none was seen.
    """

    needs_losses = True
    needs_gramian = True

    def __init__(self, tasks: Mapping[str, object], alpha: float, lr: float) -> None:
        super().__init__(tasks, torch.tensor([[1.0], [0.0]]).repeat(1, len(tasks)))
        self.alpha = alpha
        self.lr = lr

    def weights(self, signals: Signals) -> Tensor:
        """See `Balancer.weights`; afterwards the weights learn from the step."""
        assert signals.losses is not None
        assert signals.gramian is not None
        rows = self.rows(signals)
        weights = self.memory[_WEIGHTS, rows]
        losses = signals.losses.double().clamp_min(1e-12)
        first = self.memory[_FIRST_LOSSES, rows]
        first = torch.where(first > 0, first, losses)
        self.memory[_FIRST_LOSSES, rows] = first
        self.memory[_WEIGHTS, rows] = self._learned(weights, losses / first, signals.gramian.diagonal().sqrt())
        return weights.float()

    def _learned(self, weights: Tensor, ratios: Tensor, lengths: Tensor) -> Tensor:
        mean = lengths.mean()
        if not bool(mean > 0):
            return weights
        weighted = weights * lengths
        aims = weighted.mean() * (ratios / ratios.mean()) ** self.alpha
        moved = (weights - self.lr * (weighted - aims).sign() * lengths / mean).clamp_min(1e-3)
        return moved * (weights.sum() / moved.sum())


def build(options: GradNormBalancing, tasks: Mapping[str, Task]) -> GradNorm:
    """See `GradNorm`."""
    return GradNorm(tasks, options.alpha, options.lr)
