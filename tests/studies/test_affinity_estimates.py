"""Estimates from inner products of mini-batch gradients: by hand, on average, and how often intervals hold."""

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from manyhead.studies.affinity.estimates import (
    batch_squares,
    bounds,
    conflict_rates,
    cosine_sides,
    cosines_of,
    estimate,
    mean_products,
    resampled_counts,
)

Array = NDArray[Any]


def planted(
    generator: np.random.Generator, truths: Array, batches: tuple[int, ...], noise: float
) -> tuple[Array, Array]:
    """Inner products (N, N) of noisy gradients around the ``truths`` (K, D), and their owners (N,)."""
    owners = np.repeat(np.arange(len(truths)), batches)
    gradients = truths[owners] + noise * generator.standard_normal((len(owners), truths.shape[1]))
    return gradients @ gradients.T, owners


def two(cosine: float, size: int = 40) -> Array:
    """Two unit vectors of that cosine."""
    truths = np.zeros((2, size))
    truths[0, 0] = 1
    truths[1, :2] = cosine, np.sqrt(1 - cosine**2)
    return truths


def test_estimates_are_means_over_pairs_of_different_batches() -> None:
    generator = np.random.default_rng(1)
    products, owners = planted(generator, generator.standard_normal((3, 5)), (3, 5, 2), 1.0)
    counts = resampled_counts(owners, 4, seed=2)
    found = mean_products(products, owners, counts)
    for sample, one, other in itertools.product(range(4), range(3), range(3)):
        drawn = [np.repeat(np.flatnonzero(owners == task), counts[sample, owners == task]) for task in (one, other)]
        values = [products[m, n] for m in drawn[0] for n in drawn[1] if m != n]
        expected = np.mean(values) if values else np.nan
        assert found[sample, one, other] == pytest.approx(expected, nan_ok=True)
    rates = conflict_rates(products, owners)
    for one, other in itertools.product(range(3), range(3)):
        places = [np.flatnonzero(owners == task) for task in (one, other)]
        signs = [products[m, n] < 0 for m in places[0] for n in places[1] if m != n]
        assert rates[one, other] == pytest.approx(np.mean(signs))
    squares = [np.mean([products[n, n] for n in np.flatnonzero(owners == task)]) for task in range(3)]
    np.testing.assert_allclose(batch_squares(products, owners), squares)


def test_a_resample_draws_as_many_of_each_task_as_there_are() -> None:
    owners = np.repeat([0, 1], [4, 9])
    counts = resampled_counts(owners, 50, seed=0)
    assert (counts[:, :4].sum(1) == 4).all()
    assert (counts[:, 4:].sum(1) == 9).all()
    assert (counts == resampled_counts(owners, 50, seed=0)).all()


def test_noise_pulls_the_plain_cosine_to_0_and_not_ours() -> None:
    """Mean gradients of 8 batches with 3 times the true length in noise, by 600 draws."""
    generator = np.random.default_rng(3)
    truths = two(0.6)
    found: list[Array] = []
    plain: list[float] = []
    for _ in range(600):
        products, owners = planted(generator, truths, (8, 8), 0.5)
        found.append(mean_products(products, owners))
        means = np.array([[products[:8, :8].mean(), products[:8, 8:].mean()], [0, products[8:, 8:].mean()]])
        plain.append(means[0, 1] / np.sqrt(means[0, 0] * means[1, 1]))
    errors = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - truths @ truths.T) < 4 * errors).all()
    assert np.mean(plain) < 0.35
    assert float(cosines_of(np.mean(found, axis=0))[0, 1]) == pytest.approx(0.6, abs=0.05)


def covered(draws: int, *, cosine: float, noise: float) -> float:
    """How often the interval of the cosine holds the truth."""
    generator = np.random.default_rng(4)
    hits = 0
    for number in range(draws):
        products, owners = planted(generator, two(cosine), (24, 32), noise)
        found = estimate(products[None], owners, resamples=400, seed=number)
        hits += bool(found.cosines_low[0, 1] <= cosine <= found.cosines_high[0, 1])
    return hits / draws


def test_intervals_hold_the_truth() -> None:
    assert 0.91 <= covered(200, cosine=0.3, noise=0.3) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("cosine", "noise"), [(0.0, 0.3), (0.3, 0.3), (-0.6, 0.3), (0.3, 1.5)])
def test_intervals_hold_the_truth_at_every_signal(cosine: float, noise: float) -> None:
    """Above 95 % where noise is large: a bootstrap of products counts it twice."""
    assert covered(1000, cosine=cosine, noise=noise) >= 0.93


@pytest.mark.parametrize(("cosine", "direction"), [(0.8, "agree"), (-0.8, "conflict"), (0.0, "undecided")])
def test_directions(cosine: float, direction: str) -> None:
    products, owners = planted(np.random.default_rng(5), two(cosine), (16, 16), 0.2)
    found = estimate(products[None], owners)
    assert found.direction(0, 1) == direction
    assert found.direction(1, 0) == direction
    assert (found.cosines_low <= found.cosines).all()
    assert (found.cosines <= found.cosines_high).all()


def test_a_gradient_lost_in_noise_has_no_cosine_but_perhaps_a_side() -> None:
    products = np.array([[[-0.1, 0.5], [0.5, 1.0]], [[-0.1, -0.5], [-0.5, 1.0]], [[0.25, 0.25], [0.25, 1.0]]])
    assert np.isnan(cosines_of(products)[:2, 0, 1]).all()
    low, high = cosine_sides(products)
    assert (low[0, 0, 1], high[0, 0, 1]) == (0, 1)
    assert (low[1, 0, 1], high[1, 0, 1]) == (-1, 0)
    assert low[2, 0, 1] == high[2, 0, 1] == 0.5
    lower, upper = bounds(low, high)
    assert (lower[0, 1], upper[0, 1]) == (-1, 1)


def test_layers_add_up() -> None:
    generator = np.random.default_rng(6)
    layers = [planted(generator, generator.standard_normal((3, 8)), (6, 6, 6), 0.5) for _ in range(4)]
    products, owners = np.stack([layer for layer, _ in layers]), layers[0][1]
    found = estimate(products, owners, resamples=50)
    np.testing.assert_allclose(found.products, sum(mean_products(layer, owners) for layer in products))
    for place, layer in enumerate(products):
        np.testing.assert_allclose(found.layer_cosines[place], cosines_of(mean_products(layer, owners)))
