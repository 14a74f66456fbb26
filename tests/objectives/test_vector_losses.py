"""Losses of siamese pairs' vectors equal sentence-transformers' and torch's."""

from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pieces import TWO, pairs_of, random
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor, nn

from manyhead.objectives import (
    CosineEmbedding,
    CosineTriplet,
    MultipleNegativesRanking,
    cosine_embedding,
    cosine_triplet,
    mnr,
)
from manyhead.objectives.base import Objective, Piece
from manyhead.objectives.cosine_triplet import CosineTripletError

some_targets = st.lists(st.integers(0, 1), min_size=1, max_size=12)


def gradient(loss: Tensor, piece: Piece) -> Tensor:
    return torch.autograd.grad(loss, piece.vectors, allow_unused=True)[0]


def positives(piece: Piece) -> tuple[Tensor, Tensor]:
    u, v = piece.vectors[piece.targets == 1].unbind(1)
    return u, v


@given(some_targets.filter(lambda targets: sum(targets) > 1), st.sampled_from([20.0, 1.0]))
def test_mnr_equals_sentence_transformers_on_the_positives(targets: list[int], scale: float) -> None:
    piece = pairs_of(targets)
    losses = mnr.build(MultipleNegativesRanking(scale=scale), TWO).losses(piece)
    reference = MultipleNegativesRankingLoss(cast("Any", None), scale=scale)
    expected = reference.compute_loss_from_embeddings(list(positives(piece)), torch.empty(0))
    assert losses.shape == (len(targets),)
    assert bool((losses[piece.targets == 0] == 0).all())
    torch.testing.assert_close(losses.mean(), expected)
    torch.testing.assert_close(gradient(losses.mean(), piece), gradient(expected, piece))


@pytest.mark.parametrize("targets", [[0], [1], [0, 0, 0], [0, 1, 0]])
def test_mnr_of_fewer_than_two_positives_is_nothing(targets: list[int]) -> None:
    piece = pairs_of(targets)
    losses = mnr.build(MultipleNegativesRanking(), TWO).losses(piece)
    assert losses.tolist() == [0.0] * len(targets)
    assert not bool(gradient(losses.mean(), piece).any())


@given(some_targets, st.sampled_from([-0.5, 0.0, 0.4]))
def test_cosine_embedding_equals_torch(targets: list[int], margin: float) -> None:
    piece = pairs_of(targets)
    found = cosine_embedding.build(CosineEmbedding(margin=margin), TWO).losses(piece)
    u, v = piece.vectors.unbind(1)
    reference = nn.CosineEmbeddingLoss(margin=margin, reduction="none")
    torch.testing.assert_close(found, reference(u, v, piece.targets * 2 - 1))


def distance(x: Tensor, y: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(x, y, dim=1)


@given(some_targets, some_targets, st.sampled_from([0.2, 1.0]))
def test_cosine_triplet_equals_torch_with_sentences_of_the_piece_before(
    before: list[int], targets: list[int], margin: float
) -> None:
    first, second = pairs_of(before, seed=5), pairs_of(targets)
    objective = cosine_triplet.build(CosineTriplet(margin=margin), TWO)
    objective.losses(first)
    torch.manual_seed(7)
    losses = objective.losses(second)
    torch.manual_seed(7)
    drawn = first.vectors.detach().reshape(len(before) * 2, -1)[torch.randint(len(before) * 2, (len(targets),))]
    u, v = positives(second)
    reference = nn.TripletMarginWithDistanceLoss(distance_function=distance, margin=margin, reduction="sum")
    expected = reference(u, v, drawn[second.targets == 1]) / max(sum(targets), 1)
    torch.testing.assert_close(losses.mean(), expected)
    torch.testing.assert_close(gradient(losses.mean(), second), gradient(expected, second))
    assert gradient(objective.losses(second).mean(), first) is None


def test_cosine_triplet_begins_with_nothing_and_draws_from_both_sentences_of_all_pairs() -> None:
    objective = cosine_triplet.build(CosineTriplet(), TWO)
    first = pairs_of([1, 0, 1])
    losses = objective.losses(first)
    assert losses.tolist() == [0, 0, 0]
    assert not bool(gradient(losses.sum(), first).any())
    torch.manual_seed(0)
    many = pairs_of([1] * 200)
    u, v = many.vectors.detach().unbind(1)
    found = objective.losses(many).detach()
    kept = first.vectors.detach().flatten(0, 1)
    possible = (F.cosine_similarity(u[:, None], kept[None], dim=2) - F.cosine_similarity(u, v)[:, None] + 1).clamp_min(
        0
    )
    near = (possible - found[:, None]).abs() < 1e-6
    assert bool(near.any(1).all())
    assert bool(near.any(0).all())


def test_cosine_triplet_goes_on_from_its_state() -> None:
    whole, parted = (cosine_triplet.build(CosineTriplet(), TWO) for _ in range(2))
    assert isinstance(whole, CosineTripletError)
    assert isinstance(parted, CosineTripletError)
    parted.load_state_dict(whole.state_dict())
    assert parted.losses(pairs_of([1])).tolist() == [0]
    whole.losses(pairs_of([1, 0, 1], seed=3))
    state = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    parted.load_state_dict(state)
    piece = pairs_of([1, 1, 0, 1])
    torch.manual_seed(2)
    expected = whole.losses(piece)
    torch.manual_seed(2)
    assert torch.equal(parted.losses(piece), expected)


VECTOR_LOSSES: list[tuple[Objective, float]] = [
    (mnr.build(MultipleNegativesRanking(scale=3.0), TWO), 3.0),
    (cosine_embedding.build(CosineEmbedding(), TWO), 1.0),
    (cosine_triplet.build(CosineTriplet(), TWO), 1.0),
]


@pytest.mark.parametrize(("objective", "scale"), VECTOR_LOSSES)
def test_a_cosine_above_the_threshold_is_positive(objective: Objective, scale: float) -> None:
    assert getattr(objective, "fits_threshold", False)
    assert objective.outputs == 1
    cosines = random(9, 1).tanh()
    found = objective.predict(cosines).probabilities
    logs = objective.log_probabilities(cosines)
    assert found is not None
    assert logs is not None
    torch.testing.assert_close(found[:, 1], (cosines[:, 0] * scale).sigmoid())
    torch.testing.assert_close(logs.exp(), found)
    assert torch.equal(found.argmax(1), (cosines[:, 0] > 0).long())


@pytest.mark.parametrize(("objective", "scale"), VECTOR_LOSSES)
def test_vectors_of_zeros_and_of_any_length_give_finite_gradients(objective: Objective, scale: float) -> None:
    del scale
    for factor in (0.0, 1e-20, 1e15):
        vectors = (random(4, 2, 6) * factor).requires_grad_()
        piece = Piece(torch.zeros(4, 1), vectors, torch.tensor([1, 0, 1, 1]))
        for _ in range(2):
            losses = objective.losses(piece)
            assert bool(torch.isfinite(losses).all())
            assert bool(torch.isfinite(gradient(losses.sum(), piece)).all())
