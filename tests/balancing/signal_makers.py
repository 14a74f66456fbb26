"""What balancers are shown in tests, and how they are built."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from manyhead.balancing import BALANCING
from manyhead.balancing.base import Balancer, Key, Signals
from manyhead.recipe.schema import Task
from manyhead.recipe.tables import TABLES, builder

NAMES = ("one", "two", "three", "four", "five")


def tasks(size: int = 3) -> dict[str, Task]:
    """The first is a regression, the others are classifications."""
    made: dict[str, Task] = {}
    for name in NAMES[:size]:
        kind: dict[str, Any] = {"kind": "classification", "labels": ["no", "yes"], "head": "linear"}
        if name == "one":
            kind = {"kind": "regression", "range": [0, 1], "head": "linear"}
        task = {**kind, "text": "text", "target": "y", "files": {"train": "x.csv"}}
        made[name] = Task.model_validate(task, context={"tables": TABLES})
    return made


def made(kind: str, size: int = 3, **options: Any) -> Balancer:
    given = BALANCING[kind].options(kind=kind, **options)
    return builder(TABLES, "balancing", given)(given, tasks(size))


def seen(
    losses: Sequence[float] | Tensor | None = None,
    jacobian: Tensor | None = None,
    *,
    names: Sequence[str] = NAMES[:3],
    epoch: int = 0,
    step: int = 0,
) -> Signals:
    key: Key = (13, "stage", step)
    gramian = None if jacobian is None else jacobian.double() @ jacobian.double().t()
    return Signals(tuple(names), None if losses is None else torch.as_tensor(losses), gramian, epoch, key)
