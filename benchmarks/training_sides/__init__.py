"""The sides of `training.py`. Each trains in a process of its own, which imports what its side needs and no more."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Side:
    """One way to train.

    ``module`` of this folder has it, as a function ``side`` that is given ``settings``. ``precision`` is that of its
    matrix products; None: what manyhead decides on this hardware.
    """

    module: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    precision: str | None = None


OURS = {
    "ours": Side("ours"),
    "ours, length_window 16": Side("ours", {"length_window": 16}),
    "ours, accumulation 3": Side("ours", {"accumulation": 3}),
}
"""By keys of the stage."""

THEIRS = {
    "Trainer, defaults": Side("trainer", precision="fp32"),
    "Trainer, bf16, grouped by length": Side(
        "trainer", {"bf16": True, "train_sampling_strategy": "group_by_length"}, "bf16"
    ),
    "plain loop, bf16": Side("plain", precision="bf16"),
}
"""The Trainer by its arguments that are not defaults."""

SIDES = {**OURS, **THEIRS}
