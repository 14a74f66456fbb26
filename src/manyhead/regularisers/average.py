"""An average of a model's weights over its updates."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class AveragedWeights(nn.Module):
    """theta~ = (1 - beta) theta + beta theta~ after each update; ``updates`` counts them. Both are the state.

    Parameters that do not train stay as they were at the start.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.updates = 0
        for name, parameter in model.named_parameters():
            self.register_buffer(_key(name), parameter.detach().clone())

    @torch.no_grad()
    def start(self, model: nn.Module) -> None:
        """Takes over the weights of ``model``."""
        self.updates = 0
        for name, parameter in model.named_parameters():
            self.get_buffer(_key(name)).copy_(parameter)

    @torch.no_grad()
    def follow(self, model: nn.Module, beta: float) -> None:
        """One update with decay ``beta``."""
        self.updates += 1
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.get_buffer(_key(name)).lerp_(parameter, 1 - beta)

    def weights(self) -> Mapping[str, Tensor]:
        """The average by parameter name."""
        return {_name(key): average for key, average in self.named_buffers()}

    def get_extra_state(self) -> Tensor:
        """The count of updates."""
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Tensor) -> None:
        """Goes on from what `get_extra_state` gave."""
        self.updates = int(state)


def _key(name: str) -> str:
    """Buffers may not have dots in their names."""
    return name.replace(".", "/")


def _name(key: str) -> str:
    return key.replace("/", ".")
