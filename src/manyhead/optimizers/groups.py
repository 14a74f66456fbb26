"""Parameter groups: rates by depth, and which parameters decay."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from manyhead.optimizers import GroupOptions


@dataclass(frozen=True)
class Group:
    """Parameters that share a rate and a decay; ``names`` are theirs in the model, in the same order."""

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    lr: float
    weight_decay: float


def parameter_groups(
    options: GroupOptions, named: list[tuple[str, nn.Parameter]], depth_of: dict[str, int], top: int
) -> list[Group]:
    """Groups of all trainable parameters.

    ``depth_of``: encoder parameters by name to their layer (0 the embeddings, ``top`` the last layer); all others are
    heads and new layers, with rate ``head_lr``. A layer's rate is lr * layer_decay^(top - depth). Vectors (biases and
    the weights of layer norms) do not decay.
    """
    members: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        if name in depth_of:
            lr = options.lr * options.layer_decay ** (top - depth_of[name])
        else:
            lr = options.lr if options.head_lr is None else options.head_lr
        decay = options.weight_decay if parameter.ndim > 1 else 0.0
        members.setdefault((lr, decay), []).append((name, parameter))
    return [
        Group(tuple(name for name, _ in group), tuple(parameter for _, parameter in group), lr, decay)
        for (lr, decay), group in members.items()
    ]


def as_dicts(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The groups as optimisers of torch take them."""
    return [{"params": list(group.parameters), "lr": group.lr, "weight_decay": group.weight_decay} for group in groups]
