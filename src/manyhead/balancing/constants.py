"""Sum and weighted sum of the tasks' losses: sum_k c_k L_k."""

from collections.abc import Mapping

from manyhead.balancing import SumBalancing, WeightedBalancing
from manyhead.balancing.base import Balancer
from manyhead.recipe.schema import Task


def build_sum(options: SumBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """All constants 1."""
    del options, tasks
    return Balancer()


def build_weighted(options: WeightedBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """The recipe's constants."""
    del tasks
    return Balancer(options.weights)
