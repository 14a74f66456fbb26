"""PCGrad: each task's gradient is projected off those it conflicts with."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from manyhead.balancing import PcgradBalancing
from manyhead.balancing.base import Balancer, Signals
from manyhead.recipe.schema import Task
from manyhead.schedules.draws import permutations


def pcgrad_weights(gramian: Tensor, orders: Sequence[Sequence[int]], *, always: bool = False) -> Tensor:
    """The weights (K,) that make of the gradients the sum of their projections.

    ``gramian`` (K, K) of the gradients; ``orders`` (K, K): in which order each is projected off the others. Every
    projection is a combination of the gradients, so inner products are all it takes. A gradient of length 0 is never
    projected off; with ``always`` the projection is made in agreement as well.
    """
    products: list[list[float]] = gramian.double().tolist()
    size = len(products)
    total = [0.0] * size
    for task, order in enumerate(orders):
        shares = [0.0] * size
        shares[task] = 1.0
        for other in order:
            square = products[other][other]
            if other == task or not square > 0:
                continue
            product = sum(share * row[other] for share, row in zip(shares, products, strict=True))
            if always or product < 0:
                shares[other] -= product / square
        total = [whole + share for whole, share in zip(total, shares, strict=True)]
    return torch.tensor(total, dtype=torch.float64)


class Pcgrad(Balancer):
    """PCGrad (Yu 2020, algorithm 1; S4) over the shared parameters; ``always``: without its test for conflict (S3).

    The orders are drawn anew for each step and task, as pure functions of the step.
    """

    needs_gramian = True
    weighs_heads = False

    def __init__(self, constants: Mapping[str, float], *, always: bool = False) -> None:
        super().__init__(constants)
        self.always = always

    def weights(self, signals: Signals) -> Tensor:
        """See `Balancer.weights`."""
        assert signals.gramian is not None
        size = len(signals.tasks)
        orders = permutations(size, (*signals.key, "pcgrad"), count=size).tolist()
        return pcgrad_weights(signals.gramian, orders, always=self.always)


def build(options: PcgradBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """See `Pcgrad`."""
    del tasks
    return Pcgrad(options.weights, always=options.always)
