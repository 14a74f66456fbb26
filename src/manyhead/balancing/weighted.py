"""Sum and weighted sum of the tasks' losses."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from manyhead.balancing import SumBalancing, WeightedBalancing
from manyhead.balancing.base import Balancer


class WeightedSum:
    """sum_k c_k L_k; linear, so pieces of a step may be combined one by one."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = dict(weights)

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """See `Balancer.combine`."""
        return torch.stack([loss * self.weights[task] for task, loss in losses.items()]).sum()


def build_sum(options: SumBalancing, tasks: Sequence[str]) -> Balancer:
    """All constants 1."""
    del options
    return WeightedSum(dict.fromkeys(tasks, 1.0))


def build(options: WeightedBalancing, tasks: Sequence[str]) -> Balancer:
    """The recipe's constants."""
    return WeightedSum({task: options.weights.get(task, 1.0) for task in tasks})
