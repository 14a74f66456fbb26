"""GradVac: each task's gradient is turned towards the others until their usual angle is reached."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torchjd.aggregation import GradVacWeighting

from manyhead.balancing import GradvacBalancing
from manyhead.balancing.base import Remembering, Signals
from manyhead.recipe.schema import Task
from manyhead.schedules.draws import random_words


class Gradvac(Remembering):
    """GradVac (Wang 2021, eq. 5 and algorithm 1) by torchjd; the memory (K, K) holds the usual cosines.

    torchjd draws its orders from torch's generator, which is seeded from the step and left as it was. A step without
    some tasks uses and changes the cosines of its own.
    """

    needs_gramian = True
    weighs_heads = False

    def __init__(self, tasks: Mapping[str, object], beta: float, constants: Mapping[str, float]) -> None:
        super().__init__(tasks, torch.zeros(len(tasks), len(tasks)), constants)
        self.beta = beta

    def weights(self, signals: Signals) -> Tensor:
        """See `Balancer.weights`. Gradients that are all 0 have weights of 1."""
        assert signals.gramian is not None
        trace = signals.gramian.trace()
        if not bool(trace > 0):
            return torch.ones(len(signals.tasks))
        rows = self.rows(signals)
        weighting = GradVacWeighting(self.beta)
        with torch.random.fork_rng(devices=[]):
            weighting(torch.eye(len(rows), dtype=torch.float64))  # only then does it take a memory of its size
            (name,) = weighting.state_dict()
            weighting.load_state_dict({name: self.memory[rows][:, rows]})
            torch.manual_seed(int(random_words(1, (*signals.key, "gradvac"))[0] >> 1))
            weights = weighting(signals.gramian / trace)
        self.memory[rows[:, None], rows] = weighting.state_dict()[name]
        return weights


def build(options: GradvacBalancing, tasks: Mapping[str, Task]) -> Gradvac:
    """See `Gradvac`."""
    return Gradvac(tasks, options.beta, options.weights)
