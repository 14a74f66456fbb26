"""Optimisers that would spoil a resumed or scheduled run are refused, each for its own reason; sound ones are not."""

import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from manyhead.errors import UsageError
from manyhead.optimizers import OPTIMIZERS, GroupOptions
from manyhead.optimizers.groups import Group, as_dicts
from manyhead.optimizers.resumption import check_resumes
from manyhead.recipe.tables import TABLES, builder


def groups(*, rates: tuple[float, float] = (1e-3, 1e-3)) -> list[Group]:
    """As of a model: matrices and vectors, with decay and without."""
    return [
        Group((f"a{place}", f"b{place}"), (nn.Parameter(torch.ones(9, 9)), nn.Parameter(torch.ones(9))), lr, decay)
        for place, (lr, decay) in enumerate(zip(rates, (0.1, 0.0), strict=True))
    ]


class Momentum(torch.optim.Optimizer):
    """SGD with momentum; members of this file spoil it."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 1.0, "weight_decay": 0.0})
        self.count = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        self.count += 1
        for group in self.param_groups:
            self.before(group)
            for parameter in group["params"]:
                if parameter.grad is None:
                    self.without_gradient(parameter, group)
                    continue
                state = self.state[parameter]
                momentum = state.setdefault("momentum", torch.zeros_like(parameter))
                momentum.mul_(0.9).add_(parameter.grad)
                parameter.add_(momentum, alpha=-self.rate(group))

    def rate(self, group: dict[str, Any]) -> float:
        return group["lr"]

    def before(self, group: dict[str, Any]) -> None:
        pass

    def without_gradient(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        pass


class CountsOutsideItsState(Momentum):
    def rate(self, group: dict[str, Any]) -> float:
        return group["lr"] / self.count


class CountsInItsGroups(Momentum):
    def before(self, group: dict[str, Any]) -> None:
        group["count"] = group.get("count", 0) + 1

    def rate(self, group: dict[str, Any]) -> float:
        return group["lr"] / group["count"]


class DrawsFromTorch(Momentum):
    def rate(self, group: dict[str, Any]) -> float:
        return group["lr"] * float(torch.rand(()))


class DrawsFromNumpy(Momentum):
    def before(self, group: dict[str, Any]) -> None:
        np.random.random()


class DrawsFromPython(Momentum):
    def before(self, group: dict[str, Any]) -> None:
        random.random()


class KeepsAnObject(Momentum):
    def before(self, group: dict[str, Any]) -> None:
        group["odd"] = object()


class DecaysWithoutGradient(Momentum):
    def without_gradient(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        parameter.mul_(1 - group["lr"] * group["weight_decay"])


class GoesOnByMomentum(Momentum):
    def without_gradient(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        if self.state[parameter]:
            parameter.add_(self.state[parameter]["momentum"], alpha=-group["lr"])


class SetsItsRate(Momentum):
    def before(self, group: dict[str, Any]) -> None:
        group["lr"] *= 0.999


class HasItsOwnRate(Momentum):
    def rate(self, group: dict[str, Any]) -> float:
        return 1e-3


class HasOneRate(Momentum):
    def rate(self, group: dict[str, Any]) -> float:
        return self.param_groups[0]["lr"]


class FailsLater(Momentum):
    def before(self, group: dict[str, Any]) -> None:
        if self.count == 14:
            raise ZeroDivisionError("not today")


class NeedsTwoDimensions(Momentum):
    def before(self, group: dict[str, Any]) -> None:
        for parameter in group["params"]:
            _rows, _columns = parameter.shape


def make_of(kind: type[Momentum]) -> Callable[[Sequence[Group]], torch.optim.Optimizer]:
    return lambda members: kind(as_dicts(members))


@pytest.mark.parametrize("kind", [Momentum, CountsInItsGroups, DrawsFromTorch, HasOneRate])
def test_sound_optimizers_pass(kind: type[Momentum]) -> None:
    check_resumes("it", make_of(kind), groups())


REFUSED = {
    CountsOutsideItsState: "does not go on as without one",
    DrawsFromNumpy: "random numbers from a generator that training does not seed",
    DrawsFromPython: "random numbers from a generator that training does not seed",
    KeepsAnObject: "keeps a object",
    DecaysWithoutGradient: "changes parameters that have no gradient",
    GoesOnByMomentum: "changes parameters that have no gradient",
    SetsItsRate: "changes the learning rate",
    HasItsOwnRate: "takes no notice of the learning rate",
    FailsLater: "ZeroDivisionError: not today",
}


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_unsound_ones_are_refused_with_the_reason(kind: type[Momentum]) -> None:
    with pytest.raises(UsageError, match=rf"^optimizer it cannot be used: .*{REFUSED[kind]}.*; choose another$"):
        check_resumes("it", make_of(kind), groups())


def test_one_rate_for_all_is_refused_where_there_are_several() -> None:
    check_resumes("it", make_of(Momentum), groups(rates=(1e-3, 1e-2)))
    with pytest.raises(UsageError, match="leave out head_lr and layer_decay"):
        check_resumes("it", make_of(HasOneRate), groups(rates=(1e-3, 1e-2)))


def test_it_is_tried_on_parameters_of_as_many_dimensions_as_the_model_has() -> None:
    check_resumes("it", make_of(NeedsTwoDimensions), [Group(("a",), (nn.Parameter(torch.ones(9, 9)),), 1e-3, 0.0)])
    with pytest.raises(UsageError, match="not enough values to unpack"):
        check_resumes("it", make_of(NeedsTwoDimensions), groups())


@pytest.mark.parametrize("kind", [DrawsFromTorch, DrawsFromNumpy, DrawsFromPython, FailsLater])
def test_neither_generators_nor_parameters_are_disturbed(kind: type[Momentum]) -> None:
    members = groups()

    def draws() -> tuple[Any, ...]:
        parameters = [parameter.tolist() for group in members for parameter in group.parameters]
        states = torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state(legacy=False))
        return parameters, states

    before = draws()
    with contextlib.suppress(UsageError):
        check_resumes("it", make_of(kind), members)
    assert draws() == before
    assert all(parameter.grad is None for group in members for parameter in group.parameters)


@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind != "pytorch_optimizer"])
def test_all_named_members_pass_at_several_rates_with_decay(kind: str) -> None:
    given = {"sgd": {"momentum": 0.9, "nesterov": True}}.get(kind, {})
    options = OPTIMIZERS[kind].options.model_validate({"kind": kind, **given})
    assert isinstance(options, GroupOptions)
    build = builder(TABLES, "optimizers", options)
    check_resumes(kind, lambda members: build(options, members), groups(rates=(1e-3, 1e-2)))
