"""The interface of balancers."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Balancer(Protocol):
    """From losses by task to the number that is differentiated."""

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Scalar losses of the tasks in a step (or in a piece of it) to one scalar."""
        ...
