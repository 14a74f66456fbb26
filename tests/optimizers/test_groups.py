"""Rates by layer, heads' own rates, and what decays, against the rule written out parameter by parameter."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from manyhead.optimizers import GroupOptions
from manyhead.optimizers.groups import Group, as_dicts, parameter_groups

TOP = 3
RATES = st.floats(1e-6, 1e-2)


def named(frozen: frozenset[str] = frozenset()) -> list[tuple[str, nn.Parameter]]:
    """Embeddings, three layers and a head, each a matrix, a vector and a scalar."""
    owners = ["encoder.embeddings", *(f"encoder.layers.{layer}" for layer in range(TOP)), "heads.sst"]
    kinds = {"matrix": (4, 3), "vector": (3,), "scalar": ()}
    found = [(f"{owner}.{kind}", nn.Parameter(torch.zeros(shape))) for owner in owners for kind, shape in kinds.items()]
    for name, parameter in found:
        parameter.requires_grad = name not in frozen
    return found


def depths() -> dict[str, int]:
    """0 for the embeddings, 1 for the lowest layer."""
    owners = ["encoder.embeddings", *(f"encoder.layers.{layer}" for layer in range(TOP))]
    return {name: depth for depth, owner in enumerate(owners) for name, _ in named() if name.startswith(owner)}


def by_name(groups: list[Group]) -> dict[str, tuple[float, float]]:
    pairs = [(name, (group.lr, group.weight_decay)) for group in groups for name in group.names]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@given(lr=RATES, head_lr=st.none() | RATES, layer_decay=st.floats(0.1, 1), weight_decay=st.sampled_from([0.0, 0.1]))
def test_every_parameter_has_the_rate_of_its_depth_and_only_matrices_decay(
    lr: float, head_lr: float | None, layer_decay: float, weight_decay: float
) -> None:
    options = GroupOptions(kind="any", lr=lr, head_lr=head_lr, layer_decay=layer_decay, weight_decay=weight_decay)
    members = named()
    groups = parameter_groups(options, members, depths(), TOP)
    found = by_name(groups)
    assert found.keys() == {name for name, _ in members}
    for name, _ in members:
        rate, decay = found[name]
        if name.startswith("heads"):
            expected = lr if head_lr is None else head_lr
        elif "embeddings" in name:
            expected = lr * layer_decay**3
        else:
            expected = lr * layer_decay ** {"0": 2, "1": 1, "2": 0}[name.split(".")[2]]
        assert rate == pytest.approx(expected)
        assert decay == (weight_decay if name.endswith("matrix") else 0.0)
    for group in groups:
        assert [dict(members)[name] is parameter for name, parameter in zip(group.names, group.parameters, strict=True)]


def test_one_rate_without_decay_is_one_group() -> None:
    groups = parameter_groups(GroupOptions(kind="any"), named(), depths(), TOP)
    assert len(groups) == 1


def test_frozen_parameters_are_in_no_group() -> None:
    frozen = frozenset(name for name, _ in named() if name.startswith("encoder.embeddings"))
    found = by_name(parameter_groups(GroupOptions(kind="any"), named(frozen), depths(), TOP))
    assert found.keys() == {name for name, _ in named()} - frozen


def test_an_optimizer_of_torch_takes_the_groups() -> None:
    groups = parameter_groups(GroupOptions(kind="any", head_lr=1e-3, weight_decay=0.1), named(), depths(), TOP)
    optimizer = torch.optim.SGD(as_dicts(groups))
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (group.lr, group.weight_decay) for group in groups
    ]
