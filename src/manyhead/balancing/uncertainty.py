"""Uncertainty weighting: each loss over its learned variance."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from manyhead.balancing import UncertaintyBalancing
from manyhead.balancing.base import Balancer, Signals
from manyhead.encoder.per_task import task_key
from manyhead.recipe.schema import Task


class Uncertainty(Balancer):
    """sum_k a_k exp(-s_k) L_k + s_k / 2 with learned log-variances s_k (Kendall 2018, eqs. 7 and 10).

    a_k is 1 for classification and 1/2 for regression. The s_k start at 0 and are trained with the model's weights.
    """

    def __init__(self, factors: Mapping[str, float]) -> None:
        super().__init__()
        self.factors = dict(factors)
        self.log_variances = nn.ParameterDict({task_key(task): torch.zeros(()) for task in factors})

    def weights(self, signals: Signals) -> Tensor:
        """See `Balancer.weights`."""
        factors = torch.tensor([self.factors[task] for task in signals.tasks])
        logs = torch.stack([self.log_variances[task_key(task)].detach() for task in signals.tasks])
        return factors * torch.exp(-logs.cpu())

    def observe(self, signals: Signals) -> None:
        """Sets the log-variances' gradients: 1/2 - w_k L_k. Those of tasks that the step lacks are left alone."""
        assert signals.losses is not None
        slopes = 0.5 - self.weights(signals) * signals.losses
        for task, slope in zip(signals.tasks, slopes, strict=True):
            log_variance = self.log_variances[task_key(task)]
            log_variance.grad = slope.to(log_variance)


def build(options: UncertaintyBalancing, tasks: Mapping[str, Task]) -> Balancer:
    """See `Uncertainty`."""
    del options
    return Uncertainty({name: 1.0 if task.kind == "classification" else 0.5 for name, task in tasks.items()})
