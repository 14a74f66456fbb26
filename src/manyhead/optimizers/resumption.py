"""Whether an optimiser suits training that may be interrupted, found out by trying it on tiny parameters."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from safetensors.torch import load, save
from torch import nn

from manyhead.errors import CheckpointError, UsageError
from manyhead.optimizers.groups import Group
from manyhead.optimizers.state import restore_state, saved_state

Make = Callable[[Sequence[Group]], torch.optim.Optimizer]

_SAVED_AT, _STEPS = 13, 24
"""When the trial's state is saved, and its end; the usual periods of 5, 6 and 10 steps end before and behind it."""

_SHAPES = ((), (5,), (6, 4), (4, 3, 3), (3, 3, 2, 2))
"""Shape of a tiny parameter, by its number of dimensions."""

_HAS_GRADIENT: dict[str, Callable[[int], bool]] = {
    "always": lambda _: True,
    "sometimes": lambda step: step % 3 == 1,
    "late": lambda step: step >= _SAVED_AT,
    "never": lambda _: False,
}


def check_resumes(name: str, make: Make, groups: Sequence[Group]) -> None:
    """Refuses an optimiser that does not go on after an interruption to the same bits as without one.

    It trains a few tiny parameters on their device, its state is saved in between, put into another one, and both go
    on. torch's generator is seeded at each step, as training does; all generators are left as they were.

    Args:
        name: What messages call the optimiser.
        make: Builds one.
        groups: Those it will train; only rates, decays, numbers of dimensions and the device are looked at.

    Raises:
        UsageError: It fails, keeps what cannot be saved, goes on otherwise, draws random numbers that training does
            not seed, changes parameters without a gradient, or does not keep to the rates it is given.
    """
    try:
        with _generators_kept(groups[0].parameters[0].device):
            _try(make, _tiny(groups))
    except UsageError:
        raise
    except (_UnfitError, CheckpointError) as error:
        problem = str(error)
    except Exception as error:  # whatever a library may raise
        problem = f"it ends in {type(error).__name__}: {error}"
    else:
        return
    raise UsageError(f"optimizer {name} cannot be used: {problem}; choose another")


class _UnfitError(Exception):
    """What is wrong with an optimiser."""


@dataclass(frozen=True)
class _Trial:
    """An optimiser at work on tiny parameters, which are named KIND.GROUP.DIMENSIONS, by when they have a gradient."""

    groups: tuple[Group, ...]
    optimizer: torch.optim.Optimizer

    @property
    def named(self) -> dict[str, nn.Parameter]:
        return {name: each for group in self.groups for name, each in zip(group.names, group.parameters, strict=True)}

    def differences(self, other: "_Trial") -> set[str]:
        """Names of the parameters that differ from the other's."""
        return {name for name, parameter in self.named.items() if not torch.equal(parameter, other.named[name])}

    def step(self, step: int, factors: tuple[float, float] = (1, 1)) -> None:
        """Takes a step at the groups' rates times ``factors``. Raises `_UnfitError` for what a step must not do."""
        generator = torch.Generator().manual_seed(step)
        alone = []
        for name, parameter in self.named.items():
            gradient = torch.randn(parameter.shape, generator=generator).to(parameter.device)
            parameter.grad = gradient if _HAS_GRADIENT[name.partition(".")[0]](step) else None
            if parameter.grad is None:
                alone.append((parameter, parameter.detach().clone()))
        rates = [group.lr * factor / (1 + step % 2) for group, factor in zip(self.groups, factors, strict=True)]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        torch.manual_seed(step)
        self.optimizer.step()
        if not all(torch.equal(parameter, before) for parameter, before in alone):
            raise _UnfitError("it changes parameters that have no gradient in a step")
        if [group["lr"] for group in self.optimizer.param_groups] != rates:
            raise _UnfitError("it changes the learning rate, which the schedule sets")

    def saved(self) -> tuple[bytes, str]:
        """Parameters and the optimiser's state, as files hold them."""
        tensors, numbers = saved_state(self.optimizer, self.named)
        parameters = {name: parameter.detach() for name, parameter in self.named.items()}
        return save({**parameters, **tensors}), json.dumps(numbers, allow_nan=False)

    def loaded(self, saved: tuple[bytes, str]) -> "_Trial":
        """Itself, from there on."""
        tensors = load(saved[0])
        for name, parameter in self.named.items():
            parameter.data.copy_(tensors.pop(name))
        restore_state(self.optimizer, self.named, tensors, json.loads(saved[1]))
        return self


def _try(make: Make, tiny: tuple[Group, Group]) -> None:
    """Lets the optimiser work with and without an interruption, and at lower rates. Raises `_UnfitError`."""
    whole = _begun(make, tiny)
    for step in range(_SAVED_AT):
        whole.step(step)
    saved = whole.saved()
    before, resumed, slower, last_slower = (_begun(make, tiny).loaded(saved) for _ in range(4))
    moved: set[str] = set()
    follow: set[str] = set()
    follow_own: set[str] = set()
    for step in range(_SAVED_AT, _STEPS):
        whole.step(step)
        resumed.step(step)
        if step < _SAVED_AT + 3:
            slower.step(step, (0.5, 0.5))
            last_slower.step(step, (1, 0.5))
            moved |= whole.differences(before)
            follow |= whole.differences(slower)
            follow_own |= whole.differences(last_slower)
    if whole.saved() != resumed.saved():
        raise _UnfitError("after an interruption it does not go on as without one")
    if moved - follow:
        raise _UnfitError("it takes no notice of the learning rate, which the schedule sets")
    if tiny[0].lr != tiny[1].lr and moved.intersection(tiny[1].names) - follow_own:
        raise _UnfitError("it has one learning rate for all parameters; leave out head_lr and layer_decay")


def _begun(make: Make, groups: Sequence[Group]) -> _Trial:
    own = tuple(
        replace(group, parameters=tuple(nn.Parameter(each.detach().clone()) for each in group.parameters))
        for group in groups
    )
    return _Trial(own, make(own))


def _tiny(groups: Sequence[Group]) -> tuple[Group, Group]:
    """Two groups, at two different rates if there are, of tiny parameters of all numbers of dimensions."""
    first = groups[0]
    last = next((group for group in reversed(groups) if group.lr != first.lr), groups[-1])
    dimensions = sorted({parameter.ndim for group in groups for parameter in group.parameters})
    device = first.parameters[0].device
    generator = torch.Generator().manual_seed(0)

    def shrunk(group: Group, place: int) -> Group:
        names = [f"{kind}.{place}.{ndim}" for kind in _HAS_GRADIENT for ndim in dimensions]
        # Small, so that an optimiser which begins with tiny updates changes them.
        values = [1e-6 * torch.randn(_SHAPES[int(name[-1])], generator=generator) for name in names]
        return replace(group, names=tuple(names), parameters=tuple(nn.Parameter(each.to(device)) for each in values))

    return shrunk(first, 0), shrunk(last, 1)


@contextmanager
def _generators_kept(device: torch.device) -> Iterator[None]:
    """Leaves all generators as they were. Raises `_UnfitError` where Python's or numpy's was drawn from."""
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
            if random.getstate() != python or str(np.random.get_state(legacy=False)) != str(numpy):
                raise _UnfitError("it draws random numbers from a generator that training does not seed")
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
