"""AdaBelief: steps are long where the gradient is near its running mean, short where it is not."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from manyhead.optimizers import AdaBeliefOptions
from manyhead.optimizers.groups import Group, as_dicts

_PIECE = 1 << 17
"""Elements."""


class AdaBelief(torch.optim.Optimizer):
    """AdaBelief (Zhuang et al. 2020, Algorithm 2, without its projection and AMSGrad).

    In step t of a parameter with gradient g, by elements:

        m = beta1 m + (1 - beta1) g
        s = beta2 s + (1 - beta2) (g - m)^2 + eps
        parameter -= lr m / (1 - beta1^t) / (sqrt(s / (1 - beta2^t)) + eps)

    There is no rectification. ``weight_decay`` is decoupled, which is an option of the paper: before the update the
    parameter is multiplied by 1 - lr * weight_decay. t counts the steps in which the parameter has a gradient;
    pytorch_optimizer's AdaBelief, which is equal otherwise, counts those of its group, so that a head trained for the
    first time late in an epoch would begin with steps several times as long.
    """

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float], eps: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Updates all parameters that have a gradient; gives what ``closure`` gives, which is called before."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())  # on the CPU: reading it waits for no device
            state["mean"] = torch.zeros_like(parameter)
            state["variance"] = torch.zeros_like(parameter)
        state["step"] += 1
        step = int(state["step"])
        (beta1, beta2), eps, lr = group["betas"], group["eps"], group["lr"]
        unbias = (1 - beta2**step) ** 0.5
        for value, slope, mean, variance in _pieces(parameter, gradient, state["mean"], state["variance"]):
            mean.lerp_(slope, 1 - beta1)
            surprise = slope - mean
            variance.mul_(beta2).addcmul_(surprise, surprise, value=1 - beta2).add_(eps)
            if group["weight_decay"]:
                value.mul_(1 - lr * group["weight_decay"])
            scale = torch.sqrt(variance, out=surprise).add_(eps * unbias)
            value.addcdiv_(mean, scale, value=-lr * unbias / (1 - beta1**step))


def _pieces(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """The tensors in pieces that stay in a processor's cache from one operation to the next; elsewhere whole."""
    if tensors[0].device.type != "cpu" or not all(tensor.is_contiguous() for tensor in tensors):
        return [tensors]
    return zip(*(tensor.view(-1).split(_PIECE) for tensor in tensors), strict=True)


def build(options: AdaBeliefOptions, groups: Sequence[Group]) -> torch.optim.Optimizer:
    """An `AdaBelief`."""
    return AdaBelief(as_dicts(groups), options.lr, options.betas, options.eps)
