"""The cheap dropout is dropout: rate, scale, gradient, generator."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from manyhead.encoder.dropout import Dropout, dropout, keep_mask, mask_, replace_dropout


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rate_and_scale(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    found = dropout(torch.ones(1000, 1001, dtype=dtype), rate, training=True)
    kept = found[found != 0]
    assert 1 - len(kept) / found.numel() == pytest.approx(rate, abs=0.003)
    assert kept.unique().tolist() == pytest.approx([1 / (1 - rate)], rel=5e-3)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    zeros = (dropout(torch.ones(1_000_000), 0.3, training=True) == 0).float()
    for lag in (1, 2, 3, 4, 8, 16):
        both = (zeros[:-lag] * zeros[lag:]).mean().item()
        assert both == pytest.approx(0.09, abs=0.003)


@given(st.integers(0, 50), st.integers(1, 5))
def test_any_shape(rows: int, columns: int) -> None:
    assert dropout(torch.ones(rows, columns), 0.5, training=True).shape == (rows, columns)


def test_gradient_is_the_mask() -> None:
    torch.manual_seed(0)
    values = torch.randn(64, 7, requires_grad=True)
    found = dropout(values, 0.25, training=True)
    found.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad * values.detach(), found.detach())


def test_seed_decides_the_mask_and_evaluation_draws_nothing() -> None:
    values = torch.ones(100)
    torch.manual_seed(4)
    first = dropout(values, 0.5, training=True)
    torch.manual_seed(4)
    state = torch.get_rng_state()
    assert dropout(values, 0.5, training=False) is values
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(dropout(values, 0.5, training=True), first)


def test_every_dropout_of_a_model_is_replaced() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2), nn.Sequential(nn.Dropout(0.4)))
    replace_dropout(model)
    assert [module.p for module in model.modules() if isinstance(module, Dropout)] == [0.2, 0.4]
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())


@pytest.mark.parametrize("count", [7, 60_000, 70_001])
def test_masks_are_the_same_for_any_number_of_threads(count: int) -> None:
    found: list[torch.Tensor] = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 2):
            torch.set_num_threads(number)
            torch.manual_seed(5)
            found.append(keep_mask(0.25, torch.empty(count, dtype=torch.int16)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert set(found[0].unique().tolist()) == {-1, 0}
    kept = (found[0] == -1).double()
    assert kept.mean().item() == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / count) ** 0.5)


def test_neighbours_in_a_mask_know_nothing_of_each_other() -> None:
    torch.manual_seed(1)
    kept = (keep_mask(0.5, torch.empty(1 << 18, dtype=torch.int16)) == -1).double() - 0.5
    for apart in (1, 2, 3, 4, 1 << 17):
        assert abs(float((kept[apart:] * kept[:-apart]).mean())) < 4 * 0.25 / (1 << 17) ** 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_what_a_mask_drops_is_zero_and_all_else_stays(dtype: torch.dtype) -> None:
    values = torch.randn(1000).to(dtype)
    keep = keep_mask(0.3, torch.empty(1000, dtype=torch.int16))
    assert torch.equal(mask_(values.clone(), keep), torch.where(keep.bool(), values, 0.0))
    assert keep.bool().float().mean().item() == pytest.approx(0.7, abs=0.06)
