"""Losses of a head's outputs equal torch's, or a slow transcription; pieces of a step add up to the whole."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pieces import FIVE, SCORE, TWO, piece_of, random

from manyhead.objectives import (
    BinaryCrossEntropy,
    CosineMeanSquaredError,
    CrossEntropy,
    MeanSquaredAndAbsoluteError,
    MeanSquaredError,
    ScoreCrossEntropy,
    TargetSpec,
    bce,
    cosine_mse,
    cross_entropy,
    mse,
    score_cross_entropy,
)
from manyhead.objectives.base import Objective, reduce_losses


def test_cross_entropy_equals_torch() -> None:
    outputs, targets = random(8, 5), torch.arange(8) % 5
    found = cross_entropy.build(CrossEntropy(), FIVE).losses(piece_of(outputs, targets))
    torch.testing.assert_close(found.mean(), F.cross_entropy(outputs, targets))
    smooth = TargetSpec(labels=FIVE.labels, label_smoothing=0.2)
    found = cross_entropy.build(CrossEntropy(), smooth).losses(piece_of(outputs, targets))
    torch.testing.assert_close(found.mean(), F.cross_entropy(outputs, targets, label_smoothing=0.2))


def test_class_weights_scale_each_example() -> None:
    outputs, targets = random(8, 5), torch.arange(8) % 5
    weights = (1.0, 2.0, 0.5, 3.0, 1.0)
    weighted = TargetSpec(labels=FIVE.labels, class_weights=weights)
    plain = cross_entropy.build(CrossEntropy(), FIVE).losses(piece_of(outputs, targets))
    found = cross_entropy.build(CrossEntropy(), weighted).losses(piece_of(outputs, targets))
    torch.testing.assert_close(found, plain * torch.tensor(weights)[targets])
    pair = TargetSpec(labels=TWO.labels, class_weights=(1.0, 4.0))
    piece = piece_of(outputs[:, :1], targets % 2)
    plain = bce.build(BinaryCrossEntropy(), TWO).losses(piece)
    found = bce.build(BinaryCrossEntropy(), pair).losses(piece)
    torch.testing.assert_close(found, plain * torch.tensor([1.0, 4.0])[targets % 2])


def test_bce_is_cross_entropy_of_two_logits_one_of_them_zero() -> None:
    logit, targets = random(8, 1), torch.arange(8) % 2
    objective = bce.build(BinaryCrossEntropy(), TWO)
    two = torch.cat([torch.zeros_like(logit), logit], 1)
    torch.testing.assert_close(
        objective.losses(piece_of(logit, targets)), F.cross_entropy(two, targets, reduction="none")
    )
    probabilities = objective.predict(logit).probabilities
    assert probabilities is not None
    torch.testing.assert_close(probabilities, two.softmax(1))


def test_bce_fits_a_threshold_where_it_is_asked_to() -> None:
    fixed = bce.build(BinaryCrossEntropy(), TWO)
    fitted = bce.build(BinaryCrossEntropy(threshold="fitted"), TWO)
    assert not getattr(fixed, "fits_threshold", False)
    assert getattr(fitted, "fits_threshold", False)
    piece = piece_of(random(8, 1), torch.arange(8) % 2)
    assert torch.equal(fixed.losses(piece), fitted.losses(piece))


def test_squared_errors() -> None:
    outputs, targets = random(8, 1).tanh(), torch.linspace(0, 5, 8)
    piece = piece_of(outputs, targets)
    torch.testing.assert_close(mse.build(MeanSquaredError(), SCORE).losses(piece), (targets - outputs[:, 0]) ** 2)
    scaled = cosine_mse.build(CosineMeanSquaredError(), SCORE)
    torch.testing.assert_close(scaled.losses(piece), (targets - 5 * outputs[:, 0]) ** 2)
    scores = scaled.predict(outputs).scores
    assert scores is not None
    torch.testing.assert_close(scores, 5 * outputs[:, 0])
    with pytest.raises(ValueError, match="range"):
        cosine_mse.build(CosineMeanSquaredError(), TargetSpec())


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 1.0])
def test_blend_of_squared_and_absolute_error(gamma: float) -> None:
    outputs, targets = random(8, 1), torch.linspace(0, 5, 8)
    found = mse.build_with_l1(MeanSquaredAndAbsoluteError(gamma=gamma), SCORE).losses(piece_of(outputs, targets))
    expected = gamma * F.mse_loss(outputs[:, 0], targets) + (1 - gamma) * F.l1_loss(outputs[:, 0], targets)
    torch.testing.assert_close(found.mean(), expected)


scores = st.lists(st.floats(0, 5, width=32), min_size=1, max_size=9)


@given(scores)
def test_score_cross_entropy_is_that_of_the_two_numbers_next_to_the_score(targets: list[float]) -> None:
    outputs = random(len(targets), 6)
    objective = score_cross_entropy.build(ScoreCrossEntropy(), SCORE)
    assert objective.outputs == 6
    expected: list[torch.Tensor] = []
    for row, target in zip(outputs.log_softmax(1), targets, strict=True):
        shares = [max(0.0, 1 - abs(target - number)) for number in range(6)]
        assert math.isclose(sum(number * share for number, share in enumerate(shares)), target, abs_tol=1e-6)
        expected.append(-sum((row[number] * share for number, share in enumerate(shares)), torch.zeros(())))
    found = objective.losses(piece_of(outputs, torch.tensor(targets)))
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize(
    ("target", "number"),
    [(-2.0, -2), (-1.51, -2), (-1.5, -1), (0.49999997, 0), (0.5, 1), (1.49, 1), (3.0, 3), (9.0, 3), (-9.0, -2)],
)
def test_hard_targets_round_half_up_inside_the_range(target: float, number: int) -> None:
    objective = score_cross_entropy.build(ScoreCrossEntropy(targets="hard"), TargetSpec(range=(-2.0, 3.0)))
    outputs = random(1, 6)
    found = objective.losses(piece_of(outputs, torch.tensor([target])))
    torch.testing.assert_close(found, F.cross_entropy(outputs, torch.tensor([number + 2]), reduction="none"))


def test_the_expected_number_is_predicted() -> None:
    objective = score_cross_entropy.build(ScoreCrossEntropy(), TargetSpec(range=(-2.0, 3.0)))
    outputs = random(7, 6)
    predicted = objective.predict(outputs)
    assert predicted.probabilities is None
    assert predicted.scores is not None
    expected = (outputs.softmax(1) * torch.tensor([-2.0, -1, 0, 1, 2, 3])).sum(1)
    torch.testing.assert_close(predicted.scores, expected)
    certain = torch.full((1, 6), -1e4).index_fill(1, torch.tensor([4]), 1e4)
    scores = objective.predict(certain).scores
    assert scores is not None
    assert scores.tolist() == [2.0]


@pytest.mark.parametrize("ends", [None, (0.0, 4.5), (0.5, 4.0)])
def test_score_cross_entropy_needs_whole_numbers(ends: tuple[float, float] | None) -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        score_cross_entropy.build(ScoreCrossEntropy(), TargetSpec(range=ends))


CLASSES: list[tuple[Objective, int]] = [
    (cross_entropy.build(CrossEntropy(), TargetSpec(FIVE.labels, None, (1.0, 2.0, 3.0, 1.0, 1.0), 0.1)), 5),
    (bce.build(BinaryCrossEntropy(), TWO), 1),
]
SCORES: list[tuple[Objective, int]] = [
    (mse.build(MeanSquaredError(), SCORE), 1),
    (mse.build_with_l1(MeanSquaredAndAbsoluteError(), SCORE), 1),
    (cosine_mse.build(CosineMeanSquaredError(), SCORE), 1),
    (score_cross_entropy.build(ScoreCrossEntropy(), SCORE), 6),
]


@pytest.mark.parametrize(("objective", "width"), CLASSES + SCORES)
@pytest.mark.parametrize("cuts", [[8], [3, 5], [1, 1, 6]])
def test_pieces_of_a_step_add_up_to_its_mean(objective: Objective, width: int, cuts: list[int]) -> None:
    outputs = random(8, width)
    targets = torch.arange(8) % 2 if (objective, width) in CLASSES else torch.linspace(0, 5, 8)
    pieces = [
        reduce_losses(objective.losses(piece_of(*part)), 8)
        for part in zip(outputs.split(cuts), targets.split(cuts), strict=True)
    ]
    torch.testing.assert_close(torch.stack(pieces).sum(), objective.losses(piece_of(outputs, targets)).mean())


@pytest.mark.parametrize("value", [1e4, -1e4])
@pytest.mark.parametrize(("objective", "width"), CLASSES + SCORES)
def test_losses_and_gradients_stay_finite_at_extreme_outputs(objective: Objective, width: int, value: float) -> None:
    outputs = torch.full((2, width), value).index_fill(1, torch.tensor([0]), -value).requires_grad_()
    targets = torch.tensor([0, 1]) if (objective, width) in CLASSES else torch.tensor([0.0, 4.5])
    losses = objective.losses(piece_of(outputs, targets))
    losses.sum().backward()
    assert outputs.grad is not None
    assert bool(torch.isfinite(losses).all())
    assert bool(torch.isfinite(outputs.grad).all())


@pytest.mark.parametrize(("objective", "width"), CLASSES)
def test_log_probabilities_are_those_of_the_predictions(objective: Objective, width: int) -> None:
    outputs = random(8, width)
    logs, probabilities = objective.log_probabilities(outputs), objective.predict(outputs).probabilities
    assert logs is not None
    assert probabilities is not None
    torch.testing.assert_close(logs.exp(), probabilities)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(8))
