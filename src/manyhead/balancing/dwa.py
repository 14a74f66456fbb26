"""Dynamic weight average: weights from how much each loss fell between the last two epochs."""

from collections.abc import Mapping

import torch
from torch import Tensor

from manyhead.balancing import DwaBalancing
from manyhead.balancing.base import Remembering, Signals
from manyhead.recipe.schema import Task

_EPOCH, _BEFORE, _LAST, _SUMS, _COUNTS = range(5)


class Dwa(Remembering):
    """w_k = K softmax_k(r_k / T), r_k = L_k(t-1) / L_k(t-2) over the mean losses of epochs (Liu 2019, eq. 7).

    r_k is 1 in the first two epochs, and for a task that one of the two epochs before did not have. The memory's rows
    are the epoch (in every column), the mean losses of the two epochs before it, and the sums and counts of its own.
    """

    def __init__(self, tasks: Mapping[str, object], temperature: float) -> None:
        super().__init__(tasks, torch.zeros(5, len(tasks)))
        self.memory[[_BEFORE, _LAST]] = torch.nan
        self.temperature = temperature

    def weights(self, signals: Signals) -> Tensor:
        """See `Balancer.weights`."""
        self._enter(signals.epoch)
        before, last = self.memory[[_BEFORE, _LAST]][:, self.rows(signals)]
        ratios = (last / before.clamp_min(1e-12)).nan_to_num(1.0).clamp_max(1e6)
        return (len(signals.tasks) * (ratios / self.temperature).softmax(0)).float()

    def observe(self, signals: Signals) -> None:
        """Adds the step's losses to those of its epoch."""
        assert signals.losses is not None
        self._enter(signals.epoch)
        rows = self.rows(signals)
        self.memory[_SUMS, rows] += signals.losses.double()
        self.memory[_COUNTS, rows] += 1

    def _enter(self, epoch: int) -> None:
        for number in range(int(self.memory[_EPOCH, 0]), epoch):
            self.memory[_BEFORE] = self.memory[_LAST]
            self.memory[_LAST] = self.memory[_SUMS] / self.memory[_COUNTS]
            self.memory[[_SUMS, _COUNTS]] = 0.0
            self.memory[_EPOCH] = number + 1


def build(options: DwaBalancing, tasks: Mapping[str, Task]) -> Dwa:
    """See `Dwa`."""
    return Dwa(tasks, options.temperature)
