"""Scores as sums, resamples and permutations of them, against plain loops and scipy."""

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats
from simulated import scored

from manyhead.evaluation.metrics import METRICS
from manyhead.evaluation.scored import Scored
from manyhead.evaluation.statistics import samples
from manyhead.evaluation.statistics.pairs import permutation_p
from manyhead.evaluation.statistics.samples import sample_of

CLASS_METRICS = ("accuracy", "macro_f1", "f1", "mcc")
VALUE_METRICS = ("pearson", "spearman", "exact_match", "mse")


def models(metric: str, n: int, count: int = 2, seed: int = 0) -> list[Scored]:
    """Models that are right more often than not, with ties in all columns."""
    generator = np.random.default_rng(seed)
    if metric in CLASS_METRICS:
        classes = 2 if metric == "f1" else 4
        targets = generator.integers(classes, size=n)
        guesses = generator.integers(classes, size=(count, n))
        rows = [np.where(generator.random(n) < 0.6, targets, guess) for guess in guesses]
        return [scored("classification", metric, targets, row) for row in rows]
    targets = np.round(generator.random(n) * 5, 1)
    return [
        scored("regression", metric, targets, np.round(targets + generator.normal(size=n), 1)) for _ in range(count)
    ]


def plain(metric: str, each: Scored, rows: Any = None) -> float:
    take = np.arange(each.n) if rows is None else rows
    extra = (each.range,) if METRICS[metric].takes_range else ()
    return METRICS[metric].function(each.values[take], each.targets[take], *extra)


@pytest.mark.parametrize("metric", CLASS_METRICS + VALUE_METRICS)
def test_scores_are_the_metrics(metric: str) -> None:
    found = models(metric, 97, count=3)
    np.testing.assert_allclose(sample_of(found).scores, [plain(metric, each) for each in found], atol=1e-12)


@pytest.mark.parametrize("metric", CLASS_METRICS + VALUE_METRICS)
def test_weighted_sums_are_scores_of_repeated_examples(metric: str) -> None:
    """Whichever units are drawn: each resample's score is the metric of the rows that it stands for."""
    found = models(metric, 40)
    sample = sample_of(found)
    weights = next(iter(sample.weights(np.random.default_rng(3), 5)))
    drawn = sample.resampled(np.random.default_rng(3), 5)
    if metric in CLASS_METRICS or metric == "exact_match":
        assert (weights.sum(axis=1) == 40).all()
        return
    order = np.lexsort([found[1].values, found[0].values, found[0].targets])
    for row, scores in zip(weights.astype(int), drawn, strict=True):
        rows = np.repeat(order, row)
        np.testing.assert_allclose(scores, [plain(metric, each, rows) for each in found], atol=1e-12)


@pytest.mark.parametrize("metric", CLASS_METRICS + VALUE_METRICS)
def test_resamples_spread_like_those_of_a_plain_loop(metric: str) -> None:
    found = models(metric, 150)
    generator = np.random.default_rng(1)
    loop = np.array([[plain(metric, e, rows) for e in found] for rows in generator.integers(150, size=(1500, 150))])
    ours = sample_of(found).resampled(np.random.default_rng(2), 6000)
    np.testing.assert_allclose(ours.mean(axis=0), loop.mean(axis=0), atol=4 * loop.std() / 1500**0.5)
    np.testing.assert_allclose(ours.std(axis=0), loop.std(axis=0), rtol=0.08)
    difference = (ours[:, 1] - ours[:, 0]).std(), (loop[:, 1] - loop[:, 0]).std()
    assert difference[0] == pytest.approx(difference[1], rel=0.08)


@pytest.mark.parametrize("metric", CLASS_METRICS + VALUE_METRICS)
def test_pseudo_values_are_the_jackknife(metric: str) -> None:
    n = 60
    found = models(metric, n)
    sample = sample_of(found)
    pseudo = sample.pseudo_values()
    left = np.array([[plain(metric, e, np.delete(np.arange(n), row)) for e in found] for row in range(n)])
    expected = n * np.array([plain(metric, e) for e in found]) - (n - 1) * left
    ours = np.sort(np.repeat(pseudo, sample.counts, axis=0), axis=0)
    if metric == "spearman":  # the infinitesimal jackknife
        np.testing.assert_allclose(ours.std(axis=0), expected.std(axis=0), rtol=0.06)
        np.testing.assert_allclose(ours.mean(axis=0), sample.scores, atol=1e-12)
    else:
        np.testing.assert_allclose(ours, np.sort(expected, axis=0), atol=1e-8)


def test_spearmans_influence_is_its_derivative_by_an_examples_weight() -> None:
    found = models("spearman", 25)[:1]
    sample = sample_of(found)
    assert isinstance(sample, samples.RankSample)
    step = 1e-6
    for row, value in enumerate(sample.pseudo_values()[:, 0]):
        weights = np.full((1, 25), (1 - step) / 25)
        weights[0, row] += step
        changed = sample._ranked(weights)[0, 0]
        assert (changed - sample.scores[0]) / step == pytest.approx(value - sample.scores[0], abs=1e-4)


@pytest.mark.parametrize("metric", CLASS_METRICS + VALUE_METRICS)
def test_the_order_of_examples_changes_nothing(metric: str) -> None:
    found = models(metric, 80)
    order = np.random.default_rng(5).permutation(80)
    mixed = [each.take(order) for each in found]
    for one, other in ((sample_of(found), sample_of(mixed)),):
        for draw in ("resampled", "swapped"):
            first, second = (getattr(each, draw)(np.random.default_rng(0), 200) for each in (one, other))
            np.testing.assert_allclose(first, second, atol=1e-12)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "mse", "exact_match"])
def test_permutations_are_those_that_enumeration_finds(metric: str) -> None:
    n = 9
    first, second = models(metric, n, seed=4)
    everything = []
    for places in itertools.product((False, True), repeat=n):
        a, b = np.where(places, second.values, first.values), np.where(places, first.values, second.values)
        one, other = (scored(first.kind, metric, first.targets, column) for column in (a, b))
        everything.append(plain(metric, other) - plain(metric, one))
    seen = plain(metric, second) - plain(metric, first)
    exact = np.mean(np.abs(everything) >= abs(seen) - 1e-12)
    swapped = sample_of([first, second]).swapped(np.random.default_rng(0), 20_000)
    assert permutation_p(seen, swapped[:, 1] - swapped[:, 0]) == pytest.approx(exact, abs=0.015)


def test_permutations_of_errors_agree_with_scipy() -> None:
    first, second = models("mse", 200)
    errors = [(each.values - each.targets) ** 2 for each in (first, second)]
    theirs = stats.permutation_test(
        errors, lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=9999, rng=np.random.default_rng(0),
    )  # fmt: skip
    swapped = sample_of([first, second]).swapped(np.random.default_rng(1), 9999)
    ours = permutation_p(np.diff(sample_of([first, second]).scores)[0], swapped[:, 1] - swapped[:, 0])
    assert ours == pytest.approx(theirs.pvalue, abs=0.02)


def test_models_that_differ_in_scale_alone_are_not_told_apart() -> None:
    first = models("pearson", 100)[0]
    second = scored("regression", "pearson", first.targets, 10 * first.values + 3)
    swapped = sample_of([first, second]).swapped(np.random.default_rng(0), 50)
    np.testing.assert_allclose(swapped[:, 0], swapped[:, 1], atol=1e-12)


@pytest.mark.parametrize("metric", ["pearson", "spearman", "mse", "macro_f1"])
def test_many_rows_take_bounded_memory_and_keep_the_spread(metric: str) -> None:
    found = models(metric, 200_000)
    sample = sample_of(found)
    spread = sample.resampled(np.random.default_rng(0), 400).std(axis=0)
    pseudo = sample.pseudo_values()
    mean = sample.counts @ pseudo / sample.n
    expected = np.sqrt(sample.counts @ (pseudo - mean) ** 2) / sample.n
    np.testing.assert_allclose(spread, expected, rtol=0.15)
    swapped = sample.swapped(np.random.default_rng(0), 400)
    assert abs(np.mean(swapped[:, 1] - swapped[:, 0])) < 5 * np.std(swapped[:, 1] - swapped[:, 0]) / 20


def test_many_cells_are_drawn_in_groups() -> None:
    generator = np.random.default_rng(0)
    targets = generator.integers(120, size=30_000)
    guesses = generator.integers(120, size=(2, 30_000))
    rows = [np.where(generator.random(30_000) < 0.5, targets, guess) for guess in guesses]
    found = [scored("classification", "accuracy", targets, row, n_classes=120) for row in rows]
    sample = sample_of(found)
    assert len(sample.counts) > 5_000
    share = plain("accuracy", found[0])
    spread = sample.resampled(generator, 300).std(axis=0)[0]
    assert spread == pytest.approx((share * (1 - share) / 30_000) ** 0.5, rel=0.15)


@pytest.mark.parametrize("metric", CLASS_METRICS + VALUE_METRICS)
def test_constant_columns_give_no_warning(metric: str) -> None:
    found = models(metric, 30)
    flat = [scored(each.kind, metric, each.targets, np.full_like(each.values, 1)) for each in found]
    same = [scored(each.kind, metric, np.full_like(each.targets, 1), each.values) for each in found]
    for sides in (flat, same, [found[0], flat[0]]):
        sample = sample_of(sides)
        assert np.isfinite(sample.resampled(np.random.default_rng(0), 50)).all()
        assert np.isfinite(sample.swapped(np.random.default_rng(0), 50)).all()
        assert np.isfinite(sample.pseudo_values()).all()
        np.testing.assert_allclose(sample.scores, [plain(metric, each) for each in sides], atol=1e-12)
