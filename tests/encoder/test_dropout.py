"""The cheap dropout is dropout: rate, scale, gradient, generator."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from manyhead.encoder.dropout import Dropout, Masks, dropout, mask_, replace_dropout


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


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.999])
def test_a_mask_drawn_in_pieces_is_that_drawn_at_once(rate: float) -> None:
    torch.manual_seed(5)
    whole = Masks(rate, torch.device("cpu")).draw(40, 6)
    torch.manual_seed(5)
    masks = Masks(rate, torch.device("cpu"))
    assert torch.equal(torch.cat([masks.draw(8, 6), masks.draw(20, 6), masks.draw(12, 6)]), whole)
    assert set(whole.unique().tolist()) <= {-1, 0}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_what_a_mask_drops_is_zero_and_all_else_stays(dtype: torch.dtype) -> None:
    values = torch.randn(1000).to(dtype)
    keep = Masks(0.3, values.device).draw(1000)
    assert torch.equal(mask_(values.clone(), keep), torch.where(keep.bool(), values, 0.0))
    assert keep.bool().float().mean().item() == pytest.approx(0.7, abs=0.06)
