"""Heads give what their formula says; losses equal torch's; pieces of a step add up to the whole."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from manyhead.balancing import SumBalancing, WeightedBalancing
from manyhead.balancing import weighted as balancing
from manyhead.heads import CosineHead, HiddenHead, LinearHead, cosine, hidden, linear
from manyhead.objectives import (
    BinaryCrossEntropy,
    CosineMeanSquaredError,
    CrossEntropy,
    MeanSquaredError,
    TargetSpec,
    bce,
    cosine_mse,
    cross_entropy,
    mse,
)
from manyhead.objectives.base import Objective, reduce_losses

FIVE = TargetSpec(labels=("a", "b", "c", "d", "e"))
TWO = TargetSpec(labels=("no", "yes"))
SCORE = TargetSpec(range=(0.0, 5.0))


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


def test_cross_entropy_equals_torch() -> None:
    outputs, targets = random(8, 5), torch.arange(8) % 5
    found = cross_entropy.build(CrossEntropy(), FIVE).losses(outputs, targets)
    torch.testing.assert_close(found.mean(), F.cross_entropy(outputs, targets))
    smooth = TargetSpec(labels=FIVE.labels, label_smoothing=0.2)
    found = cross_entropy.build(CrossEntropy(), smooth).losses(outputs, targets)
    torch.testing.assert_close(found.mean(), F.cross_entropy(outputs, targets, label_smoothing=0.2))


def test_class_weights_scale_each_example() -> None:
    outputs, targets = random(8, 5), torch.arange(8) % 5
    weights = (1.0, 2.0, 0.5, 3.0, 1.0)
    weighted = TargetSpec(labels=FIVE.labels, class_weights=weights)
    plain = cross_entropy.build(CrossEntropy(), FIVE).losses(outputs, targets)
    found = cross_entropy.build(CrossEntropy(), weighted).losses(outputs, targets)
    torch.testing.assert_close(found, plain * torch.tensor(weights)[targets])
    pair = TargetSpec(labels=TWO.labels, class_weights=(1.0, 4.0))
    plain = bce.build(BinaryCrossEntropy(), TWO).losses(outputs[:, :1], targets % 2)
    found = bce.build(BinaryCrossEntropy(), pair).losses(outputs[:, :1], targets % 2)
    torch.testing.assert_close(found, plain * torch.tensor([1.0, 4.0])[targets % 2])


def test_bce_is_cross_entropy_of_two_logits_one_of_them_zero() -> None:
    logit, targets = random(8, 1), torch.arange(8) % 2
    objective = bce.build(BinaryCrossEntropy(), TWO)
    two = torch.cat([torch.zeros_like(logit), logit], 1)
    torch.testing.assert_close(objective.losses(logit, targets), F.cross_entropy(two, targets, reduction="none"))
    probabilities = objective.predict(logit).probabilities
    assert probabilities is not None
    torch.testing.assert_close(probabilities, two.softmax(1))


def test_squared_errors() -> None:
    outputs, targets = random(8, 1).tanh(), torch.linspace(0, 5, 8)
    torch.testing.assert_close(
        mse.build(MeanSquaredError(), SCORE).losses(outputs, targets), (targets - outputs[:, 0]) ** 2
    )
    scaled = cosine_mse.build(CosineMeanSquaredError(), SCORE)
    torch.testing.assert_close(scaled.losses(outputs, targets), (targets - 5 * outputs[:, 0]) ** 2)
    scores = scaled.predict(outputs).scores
    assert scores is not None
    torch.testing.assert_close(scores, 5 * outputs[:, 0])
    with pytest.raises(ValueError, match="range"):
        cosine_mse.build(CosineMeanSquaredError(), TargetSpec())


OBJECTIVES: list[tuple[Objective, int]] = [
    (cross_entropy.build(CrossEntropy(), TargetSpec(FIVE.labels, None, (1.0, 2.0, 3.0, 1.0, 1.0), 0.1)), 5),
    (bce.build(BinaryCrossEntropy(), TWO), 1),
    (mse.build(MeanSquaredError(), SCORE), 1),
]


@pytest.mark.parametrize(("objective", "width"), OBJECTIVES)
@pytest.mark.parametrize("cuts", [[8], [3, 5], [1, 1, 6]])
def test_pieces_of_a_step_add_up_to_its_mean(objective: Objective, width: int, cuts: list[int]) -> None:
    outputs, targets = random(8, width), torch.arange(8) % 2
    whole = objective.losses(outputs, targets.float() if width == 1 and objective is OBJECTIVES[2][0] else targets)
    pieces = [reduce_losses(piece, 8) for piece in whole.split(cuts)]
    torch.testing.assert_close(torch.stack(pieces).sum(), whole.mean())


@pytest.mark.parametrize("value", [1e4, -1e4])
def test_losses_stay_finite_at_extreme_outputs(value: float) -> None:
    targets = torch.tensor([0, 1])
    for objective, width in OBJECTIVES[:2]:
        losses = objective.losses(torch.full((2, width), value), targets)
        assert bool(torch.isfinite(losses).all())


def test_sum_and_weighted_sum() -> None:
    losses = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert balancing.build_sum(SumBalancing(), ["a", "b"]).combine(losses) == 5
    weighted = balancing.build(WeightedBalancing(weights={"b": 4.0}), ["a", "b"])
    assert weighted.combine(losses) == 14
    assert weighted.combine({"b": losses["b"]}) == 12
