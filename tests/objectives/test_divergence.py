"""The divergence is the symmetric Kullback-Leibler divergence, also where it is tiny or the outputs are large."""

import pytest
import torch
import torch.nn.functional as F
from pieces import FIVE, SCORE, TWO, random
from torch import Tensor

from manyhead.objectives import (
    BinaryCrossEntropy,
    CosineMeanSquaredError,
    CrossEntropy,
    MeanSquaredError,
    MultipleNegativesRanking,
    ScoreCrossEntropy,
    bce,
    cosine_mse,
    cross_entropy,
    mnr,
    mse,
    score_cross_entropy,
)
from manyhead.objectives.base import Objective
from manyhead.objectives.divergence import divergence

CLASSES: list[tuple[Objective, int]] = [
    (cross_entropy.build(CrossEntropy(), FIVE), 5),
    (bce.build(BinaryCrossEntropy(), TWO), 1),
    (mnr.build(MultipleNegativesRanking(scale=2.0), TWO), 1),
    (score_cross_entropy.build(ScoreCrossEntropy(), SCORE), 6),
]


def exact(objective: Objective, outputs: Tensor, other: Tensor) -> Tensor:
    """In double precision, term by term."""
    logs, others = objective.log_probabilities(outputs.double()), objective.log_probabilities(other.double())
    assert logs is not None
    assert others is not None
    forward = F.kl_div(others, logs, reduction="none", log_target=True).sum(1)
    return forward + F.kl_div(logs, others, reduction="none", log_target=True).sum(1)


@pytest.mark.parametrize(("objective", "width"), CLASSES)
@pytest.mark.parametrize("difference", [1.0, 1e-2])
def test_classes_diverge_by_both_directions_of_kl(objective: Objective, width: int, difference: float) -> None:
    outputs = random(50, width).requires_grad_()
    other = (outputs.detach() + difference * random(50, width, seed=1)).requires_grad_()
    found, expected = divergence(objective, outputs, other), exact(objective, outputs, other)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-9)
    assert found.shape == (50,)
    assert torch.equal(found, divergence(objective, other, outputs))
    for ours, reference in zip(
        torch.autograd.grad(found.sum(), [outputs, other]),
        torch.autograd.grad(expected.sum(), [outputs, other]),
        strict=True,
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-2, atol=1e-5 * difference)


@pytest.mark.parametrize(("objective", "width"), CLASSES)
def test_tiny_differences_still_point_somewhere(objective: Objective, width: int) -> None:
    """SMART looks for the direction in which outputs that differ by 1e-5 part most."""
    outputs = random(50, width)
    other = (outputs + 1e-5 * random(50, width, seed=1)).requires_grad_()
    found, expected = divergence(objective, outputs, other), exact(objective, outputs, other)
    assert bool((found >= 0).all())
    torch.testing.assert_close(found.double().mean(), expected.mean(), rtol=0.05, atol=0)
    ours, reference = (torch.autograd.grad(each.sum(), other)[0].flatten() for each in (found, expected))
    assert F.cosine_similarity(ours, reference, dim=0) > 0.99


@pytest.mark.parametrize(("objective", "width"), CLASSES)
def test_saturated_outputs_give_finite_numbers(objective: Objective, width: int) -> None:
    for size in (30.0, 200.0, 1e4):
        outputs = torch.full((2, width), -size).index_fill(1, torch.tensor([0]), size).requires_grad_()
        for other in (-outputs.detach(), outputs.detach().clone(), outputs.detach() * 0):
            other.requires_grad_()
            found = divergence(objective, outputs, other)
            expected = exact(objective, outputs, other)
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
            for gradient in torch.autograd.grad(found.sum(), [outputs, other]):
                assert bool(torch.isfinite(gradient).all())


def test_equal_outputs_do_not_diverge() -> None:
    for objective, width in CLASSES:
        outputs = random(5, width).requires_grad_()
        found = divergence(objective, outputs, outputs.detach())
        assert not bool(found.any())
        assert not bool(torch.autograd.grad(found.sum(), outputs)[0].any())


def test_scores_diverge_by_their_squared_difference() -> None:
    outputs, other = random(6, 1), random(6, 1, seed=1)
    expected = (outputs - other)[:, 0] ** 2
    torch.testing.assert_close(divergence(mse.build(MeanSquaredError(), SCORE), outputs, other), expected)
    scaled = divergence(cosine_mse.build(CosineMeanSquaredError(), SCORE), outputs, other)
    torch.testing.assert_close(scaled, 25 * expected)
