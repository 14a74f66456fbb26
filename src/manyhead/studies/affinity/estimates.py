"""From inner products of mini-batch gradients to what tasks are to each other, without the pull of noise.

The cosine of two mean gradients over finite samples is too near 0, since noise makes both of them longer. So the
inner product of two tasks' gradients is estimated by products of different batches, of which all are independent, and
a task's own squared length by products of two different batches of it. Both are unbiased at any number of batches.
Intervals are bootstrapped over the batches of each task; a pair of copies of one batch is no pair of different ones.

Axes: K tasks, N mini-batches of all of them, L layers, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Direction = Literal["agree", "conflict", "undecided"]

RESAMPLES = 2000
LEVEL = 0.95


def mean_products(products: Array, owners: NDArray[np.int64], counts: NDArray[np.int64] | None = None) -> Array:
    """Estimates (..., K, K) of the inner products of the tasks' true gradients, unbiased.

    ``products`` (N, N) of the mini-batches' gradients, whose tasks are ``owners`` (N,). ``counts`` (..., N): how often
    each mini-batch is in a resample; once where it is left out. NaN for the length of a task of one mini-batch.
    """
    given = np.ones(len(owners)) if counts is None else counts.astype(np.float64)
    members = owners == np.arange(owners.max() + 1)[:, None]
    shares = given[..., None, :] * members
    sums = shares @ products @ np.swapaxes(shares, -1, -2)
    pairs = shares.sum(-1)[..., :, None] * shares.sum(-1)[..., None, :]
    own = np.arange(len(members))
    sums[..., own, own] -= (shares**2 * np.diagonal(products)).sum(-1)
    pairs[..., own, own] -= (shares**2).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums / pairs


def cosines_of(products: Array) -> Array:
    """Cosines (..., K, K), within -1 to 1; NaN with a task whose estimated squared length is not above 0."""
    squares = np.diagonal(products, axis1=-2, axis2=-1)
    lengths = np.sqrt(np.where(squares > 0, squares, np.nan))
    return np.clip(products / lengths[..., :, None] / lengths[..., None, :], -1, 1)


def batch_squares(products: Array, owners: NDArray[np.int64]) -> Array:
    """Mean squared length (K,) of a mini-batch's gradient, noise and all."""
    squares = np.diagonal(products)
    return np.array([squares[owners == task].mean() for task in range(owners.max() + 1)])


def conflict_rates(products: Array, owners: NDArray[np.int64]) -> Array:
    """Share (K, K) of the pairs of mini-batches whose gradients have a negative cosine; of one task, different ones."""
    members = (owners == np.arange(owners.max() + 1)[:, None]).astype(np.float64)
    negative = (products < 0).astype(np.float64)
    np.fill_diagonal(negative, 0)
    sizes = members.sum(1)
    pairs = np.outer(sizes, sizes) - np.diag(sizes)
    return members @ negative @ members.T / pairs


def resampled_counts(owners: NDArray[np.int64], resamples: int, seed: int) -> NDArray[np.int64]:
    """How often each mini-batch is drawn (R, N) when each task's are drawn anew, as many as there are."""
    generator = np.random.Generator(np.random.PCG64(seed))
    counts = np.zeros((resamples, len(owners)), dtype=np.int64)
    for task in range(owners.max() + 1):
        places = np.flatnonzero(owners == task)
        counts[:, places] = generator.multinomial(len(places), np.full(len(places), 1 / len(places)), size=resamples)
    return counts


def bounds(low: Array, high: Array | None = None, *, level: float = LEVEL) -> tuple[Array, Array]:
    """Percentile interval over the first axis: lower bounds of samples ``low``, upper ones of ``high`` (``low``)."""
    tail = (1 - level) / 2
    return (
        np.quantile(low, tail, axis=0, method="lower"),
        np.quantile(low if high is None else high, 1 - tail, axis=0, method="higher"),
    )


def cosine_sides(products: Array) -> tuple[Array, Array]:
    """The least and the largest cosines (..., K, K) that inner ``products`` allow.

    Where a length is lost in noise, the cosine is not known but for its sign: it is anything on that side of 0.
    """
    cosines = cosines_of(products)
    unknown = np.isnan(cosines)
    least = np.where(products > 0, 0.0, -1.0)
    largest = np.where(products < 0, 0.0, 1.0)
    return np.where(unknown, least, cosines), np.where(unknown, largest, cosines)


@dataclass(frozen=True)
class Estimates:
    """What the gradients of K tasks are to each other.

    Attributes:
        products: (K, K) estimated inner products, all layers together. ``low`` and ``high`` bound theirs.
        cosines: (K, K), with ``cosines_low``, ``cosines_high``; NaN where a task's gradient is lost in noise.
        layer_cosines: (L, K, K), with ``layer_low``, ``layer_high``.
        conflicts: (K, K) share of pairs of mini-batches with a negative cosine.
        batch_squares: (K,) mean squared length of a mini-batch's gradient.
        samples: (R, K, K) cosines of the resamples.
        product_samples: (R, K, K) inner products of the resamples.
    """

    products: Array
    low: Array
    high: Array
    cosines: Array
    cosines_low: Array
    cosines_high: Array
    layer_cosines: Array
    layer_low: Array
    layer_high: Array
    conflicts: Array
    batch_squares: Array
    samples: Array
    product_samples: Array

    def direction(self, one: int, other: int) -> Direction:
        """Whether two tasks' gradients agree or conflict, as far as the interval of their inner product tells."""
        if self.low[one, other] > 0:
            return "agree"
        return "conflict" if self.high[one, other] < 0 else "undecided"


def estimate(
    products: Array, owners: NDArray[np.int64], *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Estimates:
    """Estimates, with intervals of ``level``, from ``products`` (L, N, N) by layer of mini-batches of ``owners`` (N,).

    The same input always gives the same numbers.
    """
    counts = resampled_counts(owners, resamples, seed)
    by_layer = [mean_products(layer, owners, counts) for layer in products]
    whole, total = products.sum(0), np.sum(by_layer, axis=0)
    found, samples = mean_products(whole, owners), cosines_of(total)
    layers = _stacked([cosines_of(mean_products(layer, owners)) for layer in products])
    layer_bounds = [bounds(*cosine_sides(each), level=level) for each in by_layer]
    low, high = bounds(total, level=level)
    cosines_low, cosines_high = bounds(*cosine_sides(total), level=level)
    return Estimates(
        products=found,
        low=low,
        high=high,
        cosines=cosines_of(found),
        cosines_low=cosines_low,
        cosines_high=cosines_high,
        layer_cosines=layers,
        layer_low=_stacked([lower for lower, _ in layer_bounds]),
        layer_high=_stacked([upper for _, upper in layer_bounds]),
        conflicts=conflict_rates(whole, owners),
        batch_squares=batch_squares(whole, owners),
        samples=samples,
        product_samples=total,
    )


def as_number(value: float) -> float | None:
    """A number as JSON has it, which knows only finite ones."""
    return float(value) if np.isfinite(value) else None


def _stacked(arrays: Sequence[Array]) -> Array:
    return np.stack(list(arrays))
