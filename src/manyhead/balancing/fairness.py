"""FairGrad and Nash-MTL: weights under which every task's gain from the update is a fair one."""

from collections.abc import Mapping

import torch
from torch import Tensor

from manyhead.balancing import FairgradBalancing, NashMtlBalancing
from manyhead.balancing.base import Balancer, Signals
from manyhead.recipe.schema import Task

_RIDGE = 1e-8
"""Added to the squares of unit gradients: opposite ones have no solution without."""
_STEPS = 200
_TOLERANCE = 1e-10


def fair_weights(gramian: Tensor, alpha: float) -> Tensor:
    """The weights x (K,) > 0 with G x = x^(-1/alpha) (Ban 2024, eq. 4), 0 for gradients of length 0.

    ``gramian`` G (K, K). With u = x times the gradients' lengths l, this is H u = l^(1/alpha - 1) u^(-1/alpha) for
    their cosines H: where the slope of a convex function is 0, which damped Newton steps find.
    """
    lengths = gramian.double().diagonal().sqrt()
    weights = torch.zeros_like(lengths)
    alive = lengths.nonzero().flatten()
    if not len(alive):
        return weights
    power, lengths = 1 / alpha, lengths[alive]
    longest = lengths.max()
    sides = (lengths / longest) ** (power - 1)
    cosines = gramian.double()[alive][:, alive] / lengths / lengths[:, None]
    cosines = cosines + _RIDGE * torch.eye(len(alive), dtype=torch.float64)
    scale = longest ** ((power - 1) / (power + 1))
    weights[alive] = scale * _solution(cosines, sides, power) / lengths
    return weights


def _solution(cosines: Tensor, sides: Tensor, power: float) -> Tensor:
    """The u > 0 with H u = b u^-p: the minimum of u'Hu / 2 - b' phi(u), phi' = u^-p."""

    def value(u: Tensor) -> Tensor:
        gains = u.log() if power == 1 else u ** (1 - power) / (1 - power)
        return u @ cosines @ u / 2 - sides @ gains

    u = sides ** (1 / (1 + power))
    for _ in range(_STEPS):
        right = sides * u**-power
        slope = cosines @ u - right
        if bool((slope.abs() <= _TOLERANCE * right).all()):
            break
        step = -torch.linalg.solve(cosines + torch.diag(power * right / u), slope)
        size = min(1.0, float(0.9 * torch.where(step < 0, -u / step, torch.inf).min()))
        before, descent = value(u), slope @ step
        while size > 1e-12 and not bool(value(u + size * step) <= before + 0.25 * size * descent):
            size /= 2
        u = u + size * step
    return u


class Fairgrad(Balancer):
    """FairGrad (Ban 2024, algorithm 1) over the shared parameters.

    Differs in that its equation is solved exactly, in place of least squares.
    """

    needs_gramian = True
    weighs_heads = False

    def __init__(self, alpha: float, constants: Mapping[str, float]) -> None:
        super().__init__(constants)
        self.alpha = alpha

    def weights(self, signals: Signals) -> Tensor:
        """See `Balancer.weights`."""
        assert signals.gramian is not None
        return fair_weights(signals.gramian, self.alpha)


class NashMtl(Balancer):
    """Nash-MTL (Navon 2022, claim 3.1: G x = 1 / x), the update cut to a longest length.

    Differs in that its equation is solved exactly, in place of a sequence of approximations from the last step's.
    """

    needs_gramian = True
    weighs_heads = False

    def __init__(self, max_norm: float, constants: Mapping[str, float]) -> None:
        super().__init__(constants)
        self.max_norm = max_norm

    def weights(self, signals: Signals) -> Tensor:
        """See `Balancer.weights`."""
        assert signals.gramian is not None
        weights = fair_weights(signals.gramian, 1.0)
        length = (weights @ signals.gramian @ weights).clamp_min(0).sqrt()
        return weights * (self.max_norm / length.clamp_min(self.max_norm))


def build_fairgrad(options: FairgradBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """See `Fairgrad`."""
    del tasks
    return Fairgrad(options.alpha, options.weights)


def build_nash_mtl(options: NashMtlBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """See `NashMtl`."""
    del tasks
    return NashMtl(options.max_norm, options.weights)
