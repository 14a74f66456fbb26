"""What an optimiser keeps survives files, whatever it is made of; what cannot be kept is refused."""

import json
import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn

from manyhead.errors import CheckpointError
from manyhead.optimizers.state import Json, restore_state, saved_state


class Keeper(torch.optim.Optimizer):
    """Keeps what it is told to: of each parameter, of its groups, and beside them."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99)})
        self.beside: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "beside": self.beside}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Not the base class's: that one would cast what is kept to the parameters' type.
        self.beside = state_dict["beside"]
        members = [parameter for group in self.param_groups for parameter in group["params"]]
        for key, value in state_dict["state"].items():
            self.state[members[key] if isinstance(key, int) else key] = value
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({key: value for key, value in saved.items() if key != "params"})


def named(**shapes: tuple[int, ...]) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}


def through_files(saved: tuple[Mapping[str, Tensor], Mapping[str, Json]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, numbers = saved
    return load(save(dict(tensors))), json.loads(json.dumps(numbers, allow_nan=False))


def equal(one: Any, other: Any) -> bool:
    """Equality in value and type, all the way down; a NaN equals a NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple | deque):
        same_length = len(one) == len(other) and getattr(one, "maxlen", None) == getattr(other, "maxlen", None)
        return same_length and all(map(equal, one, other))
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return one == other


def tensors_of(dtype: torch.dtype) -> st.SearchStrategy[Tensor]:
    return st.lists(st.integers(0, 1), max_size=3).map(lambda values: torch.tensor(values, dtype=dtype))


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    | st.sampled_from([torch.float32, torch.bfloat16])
    | st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]).flatmap(tensors_of)
)  # fmt: skip
KEYS = st.text(max_size=3) | st.integers() | st.floats(allow_nan=False) | st.booleans()
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(inner, max_size=3).map(lambda items: deque(items, 5))
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(of_parameter=st.dictionaries(st.text(max_size=3), VALUES, max_size=3), of_group=VALUES, beside=VALUES)
def test_whatever_is_made_of_numbers_texts_and_tensors_comes_back(
    of_parameter: dict[str, Any], of_group: Any, beside: Any
) -> None:
    mine, others = named(a=(2, 2), b=(2,)), named(a=(2, 2), b=(2,))
    optimizer, other = Keeper(mine.values()), Keeper(others.values())
    optimizer.state[mine["b"]] = dict(of_parameter)
    optimizer.state["all"] = {"k": of_group}  # pyright: ignore[reportArgumentType]
    optimizer.param_groups[0]["extra"] = of_group
    optimizer.beside = beside
    restore_state(other, others, *through_files(saved_state(optimizer, mine)))
    found = other.state[others["b"]]
    assert {key: found[key] for key in of_parameter}.keys() == of_parameter.keys()
    assert all(equal(found[key], value) for key, value in of_parameter.items())
    assert equal(other.state["all"], {"k": of_group})  # pyright: ignore[reportArgumentType]
    assert equal(other.param_groups[0]["extra"], of_group)
    assert equal(other.beside, beside)
    assert equal(other.param_groups[0]["betas"], (0.9, 0.99))


def test_tensors_that_share_memory_are_kept_apart() -> None:
    mine = named(a=(4,))
    optimizer = Keeper(mine.values())
    base = torch.arange(6.0)
    optimizer.state[mine["a"]] = {"whole": base, "part": base[2:], "again": base}
    tensors, _ = through_files(saved_state(optimizer, mine))
    assert torch.equal(tensors["a/whole"], base)
    assert torch.equal(tensors["a/part"], base[2:])
    assert torch.equal(tensors["a/again"], base)


def test_tensors_come_to_lie_where_new_ones_do() -> None:
    """Products of matrices differ in their last bits by where in memory the matrices begin."""
    mine = named(a=(40, 30))
    optimizer = torch.optim.AdamW(mine.values())
    mine["a"].grad = torch.ones(40, 30)
    optimizer.step()
    tensors, numbers = through_files(saved_state(optimizer, mine))
    amid = {key: torch.cat([torch.zeros(1), value.flatten()])[1:].view_as(value) for key, value in tensors.items()}
    assert any(tensor.data_ptr() % 64 for tensor in amid.values())
    restore_state(optimizer, mine, amid, numbers)
    state = optimizer.state[mine["a"]]
    assert torch.equal(state["exp_avg"], tensors["a/exp_avg"])
    assert not any(tensor.data_ptr() % 64 for tensor in state.values())


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_the_order_in_memory_is_kept(order: tuple[int, ...]) -> None:
    mine, others = named(a=(4,)), named(a=(4,))
    optimizer, other = Keeper(mine.values()), Keeper(others.values())
    turned = torch.randn(2, 3, 4).permute(order)
    optimizer.state[mine["a"]] = {"plain": turned, "deep": [turned.clone(memory_format=torch.preserve_format)]}
    restore_state(other, others, *through_files(saved_state(optimizer, mine)))
    for found in (other.state[others["a"]]["plain"], other.state[others["a"]]["deep"][0]):
        assert torch.equal(found, turned)
        assert found.stride() == turned.stride()


def test_rates_stay_those_of_the_optimizer_that_is_restored() -> None:
    """A checkpoint is written in the middle of a schedule, whose next step sets the rate anew from the full one."""
    mine, others = named(a=(4,)), named(a=(4,))
    optimizer, other = torch.optim.AdamW(mine.values(), lr=1e-3), torch.optim.AdamW(others.values(), lr=1e-3)
    optimizer.param_groups[0]["lr"] = 1e-7
    restore_state(other, others, *through_files(saved_state(optimizer, mine)))
    assert other.param_groups[0]["lr"] == 1e-3


def test_what_is_saved_is_all_of_it_so_older_state_is_gone() -> None:
    mine, others = named(a=(4,), b=(2,)), named(a=(4,), b=(2,))
    optimizer, other = torch.optim.AdamW(mine.values()), torch.optim.AdamW(others.values())
    for parameter in others.values():
        parameter.grad = torch.ones_like(parameter)
    other.step()
    mine["a"].grad = torch.ones(4)
    optimizer.step()
    restore_state(other, others, *through_files(saved_state(optimizer, mine)))
    assert set(other.state) == {others["a"]}


@pytest.mark.parametrize("kept", [object(), torch.Generator(), {"a": [lambda: 1]}, {1, 2}])
def test_what_no_file_of_ours_can_hold_is_refused_by_name(kept: Any) -> None:
    mine = named(a=(4,))
    optimizer = Keeper(mine.values())
    optimizer.state[mine["a"]] = {"odd": kept}
    with pytest.raises(CheckpointError, match=r"Keeper keeps a \w+ \('a/odd"):
        saved_state(optimizer, mine)


def test_the_state_of_another_optimizer_is_refused() -> None:
    mine = named(a=(4,), b=(2,))
    optimizer = torch.optim.AdamW(mine.values())
    for parameter in mine.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    saved = saved_state(optimizer, mine)
    other = named(a=(4,))
    with pytest.raises(CheckpointError, match="'b'"):
        restore_state(torch.optim.AdamW(other.values()), other, *saved)
    parted = torch.optim.AdamW([{"params": [mine["a"]]}, {"params": [mine["b"]]}])
    with pytest.raises(CheckpointError, match="1 groups of parameters; expected 2"):
        restore_state(parted, mine, *saved)
