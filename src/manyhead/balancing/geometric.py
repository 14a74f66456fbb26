"""GLS and FLS: geometric means of the losses."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from manyhead.balancing import FlsBalancing, GlsBalancing
from manyhead.balancing.base import Balancer, Signals
from manyhead.recipe.schema import Task

LOWEST, HIGHEST = 1e-8, 1e10
"""Losses count as no smaller and no larger than these."""


def geometric_weights(losses: Tensor, focus: Tensor) -> Tensor:
    """Weights (K,) whose weighted sum of gradients is that of (prod L_k)^(1/K) (prod of the m in focus L_j)^(1/m).

    ``losses`` (K,); ``focus`` (K,) says which are in focus, none for GLS alone. In logarithms and within bounds, so
    that a loss of 0 or a huge one gives finite weights.
    """
    logs = losses.double().clamp(LOWEST, HIGHEST).log()
    exponents = torch.full_like(logs, 1 / len(logs))
    if bool(focus.any()):
        exponents = exponents + focus / focus.sum()
    return (exponents @ logs - logs).exp() * exponents


class Geometric(Balancer):
    """GLS (MultiNet++, Chennupati 2019, eq. 3), with a focus FLS (S2).

    Differs in that losses are bounded from below: the gradient of a geometric mean is infinite where a loss is 0.
    """

    needs_losses = True

    def __init__(self, focus: Collection[str] = ()) -> None:
        super().__init__()
        self.focus = frozenset(focus)

    def weights(self, signals: Signals) -> Tensor:
        """See `Balancer.weights`. Tasks in focus that the step lacks do not count."""
        assert signals.losses is not None
        return geometric_weights(signals.losses, torch.tensor([task in self.focus for task in signals.tasks])).float()


def build_gls(options: GlsBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """See `Geometric`."""
    del options, tasks
    return Geometric()


def build_fls(options: FlsBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """See `Geometric`."""
    del tasks
    return Geometric(options.focus)
