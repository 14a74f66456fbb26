"""Scores as functions of sums over examples, which makes resampling them cheap.

Every score but Spearman's is a function of a few sums over the examples. Examples that contribute the same to them are
one *unit*: classes have as many units as cells (target, prediction of each model), however many examples there are.
A resample draws how often each unit occurs; a permutation, in how many examples of each unit two models change places.

Shapes: E examples, U units, S models, K sums, R resamples.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from manyhead.evaluation.metrics import exact_matches
from manyhead.evaluation.scored import Scored
from manyhead.evaluation.statistics.sums import class_scores, correlations, means

Array = NDArray[Any]

_MOST_UNITS = 5_000
"""More are put into this many groups at random, which are drawn in their place: that costs 1 % of an interval's width
in precision, and a million rows take the time of these."""
_MOST_RANKED = 1_000
"""Examples up to which each resample is ranked anew; above, Spearman's correlation is linear enough."""
_CHUNK = 4_000_000
"""Numbers of one array in memory."""


@dataclass(frozen=True)
class Sample:
    """What S models predicted for the examples of one task, as sums.

    Attributes:
        terms: (U, K) what one example of each unit adds to the sums, an array or a sparse one; sums that the models
            share first, then as many of each model.
        counts: (U,) examples of each unit.
        score: Sums (..., K) to scores (..., S).
        shared: Number of sums that the models share.
    """

    terms: Any
    counts: Array
    score: Callable[[Array], Array]
    shared: int

    @cached_property
    def n(self) -> int:
        """E."""
        return int(self.counts.sum())

    @cached_property
    def total(self) -> Array:
        """(K,) the sums of the sample."""
        return np.asarray(self.counts @ self.terms)

    @cached_property
    def scores(self) -> Array:
        """(S,)."""
        return self.score(self.total)

    def pseudo_values(self) -> Array:
        """(U, S) the jackknife's: n times the score of all, less (n - 1) times that without an example of the unit.

        Their mean estimates the score, their variance over n its variance (Tukey 1958). Needs two examples.
        """
        left = [
            self.score(self.total - _dense(self.terms[rows])) for rows in _chunks(len(self.counts), len(self.total))
        ]
        return self.n * self.scores - (self.n - 1) * np.concatenate(left)

    def resampled(self, generator: np.random.Generator, resamples: int) -> Array:
        """(R, S) scores of samples of n examples drawn with replacement."""
        if len(self.counts) > _MOST_UNITS:
            return self._grouped(generator).resampled(generator, resamples)
        return np.concatenate(
            [self.score(np.asarray(weights @ self.terms)) for weights in self.weights(generator, resamples)]
        )

    def weights(self, generator: np.random.Generator, resamples: int) -> Iterator[Array]:
        """How often each unit is drawn: (rows, U) at a time, R rows in all."""
        units, n = len(self.counts), self.n
        for rows in _chunks(resamples, max(units, len(self.total))):
            size = rows.stop - rows.start
            if units < n:
                yield generator.multinomial(n, self.counts / n, size=size).astype(np.float64)
            else:
                drawn = generator.integers(units, size=(size, n)) + np.arange(size)[:, None] * units
                yield np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)

    def swapped(self, generator: np.random.Generator, resamples: int) -> Array:
        """(R, 2) scores of two models that change places in about half of the examples, drawn anew each time."""
        if len(self.counts) > _MOST_UNITS:
            return self._grouped(generator).swapped(generator, resamples)
        shared, columns = self.shared, np.arange(len(self.total))
        own = (len(columns) - shared) // 2
        order = np.concatenate([columns[:shared], columns[shared + own :], columns[shared : shared + own]])
        change = _dense(self.terms[:, order] - self.terms)
        moving = np.abs(change).sum(axis=1) > 0
        change, counts = change[moving], self.counts[moving]
        found = [
            self.score(self.total + _halves(generator, counts, rows.stop - rows.start) @ change)
            for rows in _chunks(resamples, max(len(counts), len(columns)))
        ]
        return np.concatenate(found)

    def _grouped(self, generator: np.random.Generator) -> "Sample":
        """The same sums over `_MOST_UNITS` groups of examples, equal in size up to one, made at random."""
        examples = generator.permutation(np.repeat(np.arange(len(self.counts)), self.counts))
        groups = np.arange(len(examples)) % _MOST_UNITS
        places = sparse.coo_array((np.ones(len(examples)), (groups, examples)), shape=(_MOST_UNITS, len(self.counts)))
        return Sample(places.tocsr() @ self.terms, np.ones(_MOST_UNITS, dtype=np.int64), self.score, self.shared)


@dataclass(frozen=True)
class RankSample(Sample):
    """Spearman's correlation: `Sample` has Pearson's of the ranks, and each resample is ranked anew.

    Two models that change places keep their ranks among their own predictions, so that is an approximation.
    """

    columns: tuple[Array, ...] = ()
    """(E,) each: for each example the place of its value among the values that occur; targets first, then models."""

    def pseudo_values(self) -> Array:
        """(E, S) score plus its influence function (the infinitesimal jackknife), ranks being estimated too."""
        actual, *models = self.columns
        return np.stack([rho + _influence(each, actual) for rho, each in zip(self.scores, models, strict=True)], axis=1)

    def resampled(self, generator: np.random.Generator, resamples: int) -> Array:
        """(R, S); of more than `_MOST_RANKED` examples the means of resampled pseudo-values."""
        if len(self.counts) > _MOST_RANKED:
            values = self.pseudo_values()
            return Sample(np.c_[np.ones(len(values)), values], self.counts, means, 1).resampled(generator, resamples)
        return np.concatenate([self._ranked(weights) for weights in self.weights(generator, resamples)])

    def _ranked(self, weights: Array) -> Array:
        ranks = [_weighted_ranks(places, weights) for places in self.columns]
        lengths = [np.sqrt((weights * each**2).sum(axis=1)) for each in ranks]
        found: list[Array] = []
        for each, length in zip(ranks[1:], lengths[1:], strict=True):
            size = length * lengths[0]
            found.append(np.where(size > 0, (weights * each * ranks[0]).sum(axis=1) / np.where(size > 0, size, 1), 0.0))
        return np.stack(found, axis=1)


def sample_of(models: Sequence[Scored], metric: str | None = None) -> Sample:
    """What ``models`` predicted for the same examples, to be scored by ``metric``, or by the task's own.

    The order of the examples makes no difference to anything. Predictions and targets must be finite.
    """
    name = metric or models[0].metric
    actual, predicted = models[0].targets, np.stack([each.values for each in models])
    if name == "exact_match":
        bounds = () if models[0].range is None else (models[0].range,)
        predicted = np.stack([exact_matches(each, actual, *bounds) for each in predicted]).astype(np.int64)
        return _classes("accuracy", np.ones(len(actual), dtype=np.int64), predicted, 2)
    if models[0].kind == "classification":
        return _classes(name, actual, predicted, max(2, len(models[0].labels), actual.max() + 1, predicted.max() + 1))
    order = np.lexsort([*predicted[::-1], actual])
    return _values(name, actual[order].astype(np.float64), predicted[:, order].astype(np.float64))


def _classes(metric: str, actual: Array, predicted: Array, n_classes: int) -> Sample:
    cell = np.zeros(len(actual), dtype=np.int64)
    for column in (*predicted[::-1], actual):
        _, cell = np.unique(cell + (cell.max() + 1) * column, return_inverse=True)
    _, first, counts = np.unique(cell, return_index=True, return_counts=True)
    target, guesses = actual[first], predicted[:, first]
    ones = np.ones(len(counts))
    blocks = [(ones, target)]
    for guess in guesses:
        blocks += [((guess == target).astype(np.float64), target), (ones, guess)]
    rows = np.arange(len(counts))
    parts = [sparse.coo_array((value, (rows, column)), shape=(len(rows), n_classes)) for value, column in blocks]
    terms: Any = sparse.hstack(parts, format="csr")
    return Sample(
        terms.toarray() if terms.shape[0] * terms.shape[1] <= _CHUNK else terms,
        counts,
        class_scores(metric, n_classes),
        n_classes,
    )


def _values(metric: str, actual: Array, predicted: Array) -> Sample:
    counts = np.ones(len(actual), dtype=np.int64)
    if metric == "mse":
        return Sample(np.c_[np.ones(len(actual)), np.square(predicted - actual).T], counts, means, 1)
    if metric == "pearson":
        return Sample(_products(actual, predicted), counts, correlations, 3)
    places = tuple(np.unique(column, return_inverse=True)[1] for column in (actual, *predicted))
    everyone = counts[None, :].astype(np.float64)
    ranks = [_weighted_ranks(each, everyone)[0] for each in places]
    return RankSample(_products(ranks[0], np.stack(ranks[1:])), counts, correlations, 3, places)


def _products(actual: Array, predicted: Array) -> Array:
    y = _standardised(actual)
    columns = [np.ones(len(y)), y, y**2]
    for each in map(_standardised, predicted):
        columns += [each, each**2, each * y]
    return np.stack(columns, axis=1)


def _standardised(x: Array) -> Array:
    """Around 0 with deviation 1, so that two models that differ in scale alone can change places."""
    if (x == x[:1]).all():
        return np.zeros(len(x))
    centred = x - x.mean()
    centred = centred / np.abs(centred).max()
    centred = centred - centred.mean()
    return centred / np.sqrt(np.mean(centred**2))


def _weighted_ranks(places: Array, weights: Array) -> Array:
    """(rows, E) mid-ranks around their mean, of examples that occur ``weights`` (rows, E) times."""
    order = np.argsort(places, kind="stable")
    starts = np.searchsorted(places[order], np.arange(places.max() + 1))
    grouped = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = np.cumsum(grouped, axis=1) - grouped / 2
    return middle[:, places] - weights.sum(axis=1, keepdims=True) / 2


def _influence(x: Array, y: Array) -> Array:
    """(E,) the influence function of Spearman's rho at each example; x and y are places among the values that occur.

    With F and G the mid-distribution functions, rho is (M - 1/4) / sqrt((A - 1/4) (B - 1/4)) for M = E[F G],
    A = E[F F], B = E[G G]; each of these changes with the weight of an example both directly and through F and G.
    """
    one = np.ones((1, len(x)))
    f, g = (_weighted_ranks(each, one)[0] / len(x) + 0.5 for each in (x, y))
    m, a, b = np.mean(f * g), np.mean(f * f), np.mean(g * g)
    if a - 0.25 < 1e-12 or b - 0.25 < 1e-12:
        return np.zeros(len(x))
    dm = f * g + _mean_above(x, g) + _mean_above(y, f) - 3 * m
    da = f * f + 2 * _mean_above(x, f) - 3 * a
    db = g * g + 2 * _mean_above(y, g) - 3 * b
    size = np.sqrt((a - 0.25) * (b - 0.25))
    return dm / size - (m - 0.25) / size / 2 * (da / (a - 0.25) + db / (b - 0.25))


def _mean_above(places: Array, values: Array) -> Array:
    """(E,) for each example the mean over all of ``values`` at places above its own, and half of those at the same."""
    grouped = np.bincount(places, weights=values)
    above = grouped.sum() - np.cumsum(grouped) + grouped / 2
    return above[places] / len(places)


def _halves(generator: np.random.Generator, counts: Array, rows: int) -> Array:
    """(rows, U) how many of ``counts`` (U,) coins fall on one side."""
    if (counts == 1).all():
        return generator.integers(2, size=(rows, len(counts)), dtype=np.int8).astype(np.float64)
    return generator.binomial(counts, 0.5, size=(rows, len(counts))).astype(np.float64)


def _chunks(rows: int, width: int) -> Iterator[slice]:
    step = max(1, _CHUNK // max(width, 1))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _dense(terms: Any) -> Array:
    return terms.toarray() if sparse.issparse(terms) else terms
