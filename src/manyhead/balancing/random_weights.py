"""Random loss weighting: new weights for each step."""

from collections.abc import Mapping

import torch
from torch import Tensor

from manyhead.balancing import RandomBalancing
from manyhead.balancing.base import Balancer, Signals
from manyhead.recipe.schema import Task
from manyhead.schedules.draws import uniforms


class RandomWeights(Balancer):
    """The softmax of K standard normal numbers (RLW: Lin 2022, algorithm 1), a pure function of the step."""

    def weights(self, signals: Signals) -> Tensor:
        """See `Balancer.weights`."""
        levels = torch.from_numpy(uniforms(len(signals.tasks), (*signals.key, "random weights")))
        return torch.special.ndtri(levels.clamp_min(2.0**-54)).softmax(0).float()


def build(options: RandomBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """See `RandomWeights`."""
    del options, tasks
    return RandomWeights()
