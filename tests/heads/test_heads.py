"""Heads give what their formula says."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from manyhead.heads import (
    BlendHead,
    CosineHead,
    HiddenHead,
    LinearHead,
    MlpHead,
    RelatedHead,
    blend,
    cosine,
    hidden,
    linear,
    mlp,
    related,
)
from manyhead.objectives import CrossEntropy, TargetSpec, cross_entropy


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


@pytest.mark.parametrize(("depth", "activation"), [(1, "relu"), (3, "gelu"), (2, "tanh")])
def test_mlp_head_is_dense_and_activation_by_turns(depth: int, activation: Any) -> None:
    head = mlp.build(MlpHead(dropout=0.0, width=7, depth=depth, activation=activation), 6, 2, siamese=True)
    vectors = random(5, 2, 6)
    u, v = vectors.unbind(1)
    inner = torch.cat([u, v, (u - v).abs()], 1)
    parameters = list(head.parameters())
    assert len(parameters) == 2 * (depth + 1)
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        inner = getattr(F, activation)(inner @ weight.T + bias)
        assert inner.shape == (5, 7)
    torch.testing.assert_close(head(vectors), inner @ parameters[-2].T + parameters[-1])


def test_cosine_head_takes_each_vector_through_its_mlp_first() -> None:
    head = cosine.build(CosineHead(mlp=9), 6, 1, siamese=True)
    first, first_bias, second, second_bias = head.parameters()
    assert first.shape == (9, 6)
    vectors = random(5, 2, 6)
    u, v = (torch.relu(each @ first.T + first_bias) @ second.T + second_bias for each in vectors.unbind(1))
    expected = (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))
    torch.testing.assert_close(head(vectors)[:, 0], expected)
    torch.testing.assert_close(head(vectors), head(vectors.flip(1)))


@pytest.mark.parametrize(("alpha", "scale"), [(0.99, 1.0), (0.01, 5.0), (0.0, 5.0), (1.0, 5.0)])
@pytest.mark.parametrize("width", [None, 8])
def test_blend_head_mixes_a_function_of_the_pair_with_its_cosine(alpha: float, scale: float, width: int | None) -> None:
    head = blend.build(BlendHead(alpha=alpha, scale=scale, width=width, dropout=0.0), 6, 1, siamese=True)
    vectors = random(5, 2, 6)
    u, v = vectors.unbind(1)
    inner = torch.cat([u, v, (u - v).abs()], 1)
    *hidden_layer, weight, bias = head.parameters()
    if width is not None:
        inner = torch.relu(inner @ hidden_layer[0].T + hidden_layer[1])
    assert len(hidden_layer) == (0 if width is None else 2)
    cosines = (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))
    expected = alpha * (inner @ weight.T + bias) + (1 - alpha) * scale * cosines[:, None]
    torch.testing.assert_close(head(vectors), expected)


def test_blend_head_is_for_siamese_pairs_and_drops_nothing_of_the_cosine() -> None:
    for siamese, outputs in ((False, 1), (True, 2)):
        with pytest.raises(ValueError, match="one output for a siamese pair"):
            blend.build(BlendHead(), 6, outputs, siamese=siamese)
    head = blend.build(BlendHead(alpha=0.0, dropout=0.9), 6, 1, siamese=True).train()
    vectors = random(5, 2, 6)
    assert torch.equal(head(vectors), head(vectors))
    head = blend.build(BlendHead(alpha=0.5, dropout=0.9), 6, 1, siamese=True).train()
    assert not torch.equal(head(vectors), head(vectors))


def test_cosines_of_vectors_of_zeros_are_finite_with_their_gradients() -> None:
    for head in (cosine.build(CosineHead(), 6, 1, siamese=True), blend.build(BlendHead(), 6, 1, siamese=True)):
        vectors = torch.zeros(3, 2, 6, requires_grad=True)
        found = head(vectors)
        found.sum().backward()
        assert vectors.grad is not None
        assert bool(torch.isfinite(found).all())
        assert bool(torch.isfinite(vectors.grad).all())


def test_head_dropout_acts_in_training_only() -> None:
    head = linear.build(LinearHead(dropout=0.5), 50, 3, siamese=False)
    vectors = random(4, 1, 50)
    head.eval()
    assert torch.equal(head(vectors), head(vectors))
    head.train()
    assert not torch.equal(head(vectors), head(vectors))


def test_a_related_head_maps_the_other_tasks_probabilities_and_leaves_its_head_alone() -> None:
    objective = cross_entropy.build(CrossEntropy(), TargetSpec(labels=("a", "b", "c")))
    other = linear.build(LinearHead(dropout=0.0), 6, 3, siamese=False)
    head = related.build(RelatedHead(to="other"), 6, 2, siamese=False)
    assert isinstance(head, related.Related)
    head.relate(other, objective, 3)
    assert {name for name, _ in head.named_parameters()} == {"map.weight", "map.bias"}
    vectors = random(4, 1, 6).requires_grad_()
    found = head(vectors)
    torch.testing.assert_close(found, other(vectors).softmax(1) @ head.map.weight.T + head.map.bias)
    found.square().sum().backward()
    assert vectors.grad is not None
    assert bool(vectors.grad.abs().sum() > 0)
    assert all(parameter.grad is None for parameter in other.parameters())
