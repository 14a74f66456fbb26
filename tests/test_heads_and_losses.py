"""Heads give what their formula says."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from manyhead.balancing import SumBalancing, WeightedBalancing
from manyhead.balancing import weighted as balancing
from manyhead.heads import CosineHead, HiddenHead, LinearHead, cosine, hidden, linear


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("features", ["uv_difference", "uv"])
def test_siamese_features_reach_the_linear_head_in_order(features: Any) -> None:
    head = linear.build(LinearHead(dropout=0.0, features=features), 6, 3, siamese=True)
    vectors = random(4, 2, 6)
    u, v = vectors.unbind(1)
    joined = torch.cat([u, v, (u - v).abs()] if features == "uv_difference" else [u, v], 1)
    weight, bias = head.state_dict()["dense.weight"], head.state_dict()["dense.bias"]
    torch.testing.assert_close(head(vectors), joined @ weight.T + bias)


def test_hidden_head_is_dense_norm_gelu_dense() -> None:
    head = hidden.build(HiddenHead(dropout=0.0, width=7), 6, 2, siamese=False).double()
    state = {name: value.double() for name, value in head.state_dict().items()}
    vectors = random(5, 1, 6).double()
    inner = vectors[:, 0] @ state["dense.weight"].T + state["dense.bias"]
    inner = (inner - inner.mean(1, keepdim=True)) / (inner.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    inner = inner * state["norm.weight"] + state["norm.bias"]
    expected = F.gelu(inner) @ state["out.weight"].T + state["out.bias"]
    torch.testing.assert_close(head(vectors), expected)


def test_hidden_head_without_activation_differs_from_gelu() -> None:
    torch.manual_seed(0)
    plain = hidden.build(HiddenHead(dropout=0.0, activation="none"), 6, 2, siamese=False)
    bent = hidden.build(HiddenHead(dropout=0.0), 6, 2, siamese=False)
    bent.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain(random(5, 1, 6)), bent(random(5, 1, 6)))


def test_cosine_head_is_symmetric_bounded_and_has_no_parameters() -> None:
    head = cosine.build(CosineHead(), 6, 1, siamese=True)
    vectors = random(9, 2, 6)
    found = head(vectors)
    torch.testing.assert_close(found, head(vectors.flip(1)))
    assert found.shape == (9, 1)
    assert bool((found.abs() <= 1 + 1e-6).all())
    assert not list(head.parameters())
    with pytest.raises(ValueError, match="siamese"):
        cosine.build(CosineHead(), 6, 1, siamese=False)


def test_head_dropout_acts_in_training_only() -> None:
    head = linear.build(LinearHead(dropout=0.5), 50, 3, siamese=False)
    vectors = random(4, 1, 50)
    head.eval()
    assert torch.equal(head(vectors), head(vectors))
    head.train()
    assert not torch.equal(head(vectors), head(vectors))


def test_sum_and_weighted_sum() -> None:
    losses = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert balancing.build_sum(SumBalancing(), ["a", "b"]).combine(losses) == 5
    weighted = balancing.build(WeightedBalancing(weights={"b": 4.0}), ["a", "b"])
    assert weighted.combine(losses) == 14
    assert weighted.combine({"b": losses["b"]}) == 12
