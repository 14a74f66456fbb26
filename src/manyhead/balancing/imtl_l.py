"""IMTL-L: each loss times a learned scale that brings all to the same size."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from manyhead.balancing import ImtlLBalancing
from manyhead.balancing.base import Balancer, Signals
from manyhead.encoder.per_task import task_key
from manyhead.recipe.schema import Task


class ImtlL(Balancer):
    """sum_k exp(s_k) L_k - s_k with learned log-scales s_k (Liu 2021, eq. 8 with a = e and b = 1).

    The s_k start at 0 and are trained with the model's weights; their optimum is exp(s_k) L_k = 1.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.log_scales = nn.ParameterDict({task_key(task): torch.zeros(()) for task in tasks})

    def weights(self, signals: Signals) -> Tensor:
        """See `Balancer.weights`."""
        return torch.stack([self.log_scales[task_key(task)].detach() for task in signals.tasks]).cpu().exp()

    def observe(self, signals: Signals) -> None:
        """Sets the log-scales' gradients: w_k L_k - 1. Those of tasks that the step lacks are left alone."""
        assert signals.losses is not None
        slopes = self.weights(signals) * signals.losses - 1
        for task, slope in zip(signals.tasks, slopes, strict=True):
            log_scale = self.log_scales[task_key(task)]
            log_scale.grad = slope.to(log_scale)


def build(options: ImtlLBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """See `ImtlL`."""
    del options
    return ImtlL(list(tasks))
