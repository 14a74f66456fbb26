"""Intervals of scores: against scipy, for odd samples, and for means over tasks."""

import math

import numpy as np
import pytest
from scipy import stats
from simulated import COVERED, FIVE, SIMULATIONS, classes, coverage, scored, similarities

from manyhead.evaluation.metrics import METRICS, overall
from manyhead.evaluation.statistics.intervals import overall_intervals, score_interval, score_of

LONG = ("five.accuracy", "five.mcc", "sts.spearman", "overall")
"""Minutes; docs/evidence.md has their rates, and `simulated.py` measures them anew."""


def test_the_interval_is_scipys_bca_of_the_same_statistic() -> None:
    make = similarities("pearson")
    found = make(np.random.default_rng(0))
    ours = score_interval(found, seed=1)
    assert ours.low is not None
    theirs = stats.bootstrap(
        (found.values, found.targets), lambda x, y, axis: stats.pearsonr(x, y, axis=axis)[0], paired=True,
        vectorized=True, n_resamples=4999, batch=500, method="BCa", rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.06 * width)
    assert (ours.value, ours.method, ours.n) == (score_of(found), "bootstrap", 500)


def test_an_accuracy_has_about_the_interval_of_a_proportion() -> None:
    make, _ = classes(FIVE, "accuracy")
    found = make(np.random.default_rng(0))
    ours = score_interval(found)
    wilson = stats.binomtest(round(ours.value * found.n), found.n).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((wilson.low, wilson.high), abs=0.003)


def test_the_same_seed_gives_the_same_interval_in_any_order() -> None:
    make = similarities("spearman")
    found = make(np.random.default_rng(0))
    mixed = found.take(np.random.default_rng(1).permutation(found.n))
    first, again, other = (score_interval(each, resamples=500) for each in (found, found, mixed))
    assert first == again
    assert (first.low, first.high) == pytest.approx((other.low, other.high), abs=1e-12)
    assert score_interval(found, resamples=500, seed=1) != first
    wider = score_interval(found, resamples=500, level=0.99)
    assert wider.low is not None
    assert first.low is not None
    assert wider.low < first.low


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_examples_say_what_a_proportion_can_be_and_nothing_else(n: int) -> None:
    for metric in ("accuracy", "exact_match"):
        found = score_interval(scored(METRICS[metric].kinds[0], metric, np.arange(n) % 2, np.arange(n) % 2))
        exact = stats.binomtest(n, n).proportion_ci()
        assert (found.low, found.high, found.method) == (exact.low, exact.high, "exact")
    for metric in ("macro_f1", "mcc", "f1"):
        found = score_interval(scored("classification", metric, np.arange(n) % 2, np.arange(n) % 2, n_classes=2))
        assert (found.low, found.method) == (None, "none")
        assert f"{n} example" in str(found.reason)
    for metric in ("pearson", "spearman", "mse"):
        assert score_interval(scored("regression", metric, np.arange(n) / 2, np.arange(n) / 3)).low is None


def test_all_right_and_all_wrong_are_not_certain() -> None:
    targets = np.zeros(300, dtype=np.int64)
    right, wrong = (score_interval(scored("classification", "accuracy", targets, targets + i)) for i in (0, 1))
    assert right.low is not None
    assert wrong.high is not None
    assert 0.98 < right.low < 1
    assert right.high == 1
    assert wrong.low == 0
    assert 0 < wrong.high < 0.02


@pytest.mark.parametrize("metric", list(METRICS))
def test_constant_columns_get_an_interval_or_a_reason(metric: str) -> None:
    kind = METRICS[metric].kinds[0]
    generator = np.random.default_rng(0)
    varied = generator.integers(2, size=60) if kind == "classification" else generator.random(60) * 5
    flat = np.ones_like(varied)
    for targets, values in ((varied, flat), (flat, varied), (flat, flat)):
        found = score_interval(scored(kind, metric, targets, values, n_classes=2), resamples=300)
        assert (found.low is None) == (found.reason is not None)
        if METRICS[metric].is_correlation:
            assert "0 by definition" in str(found.reason)
        if found.low is not None and found.high is not None:
            assert found.low <= found.value <= found.high


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_predictions_that_are_no_numbers_have_no_interval(bad: float) -> None:
    targets = np.arange(40.0)
    values = targets.copy()
    values[3] = bad
    for metric in ("pearson", "mse"):
        found = score_interval(scored("regression", metric, targets, values))
        assert found.low is None
        assert "finite" in str(found.reason)


def test_the_mean_over_tasks_has_the_value_and_the_variance_of_independent_tasks() -> None:
    generator = np.random.default_rng(0)
    tasks = {"sst": classes(FIVE, "accuracy")[0](generator), "sts": similarities("pearson")(generator)}
    primary = {name: each.metric for name, each in tasks.items()}
    expected = overall({name: {each.metric: score_of(each)} for name, each in tasks.items()}, primary)
    found = overall_intervals(tasks)
    for interval, value, factor in zip(found, expected, (0.5, 1.0), strict=True):
        assert interval is not None
        assert interval.low is not None
        assert interval.high is not None
        assert interval.value == pytest.approx(value)
        halves = [score_interval(each) for each in tasks.values()]
        widths = [each.high - each.low for each in halves if each.high is not None and each.low is not None]
        together = math.hypot(widths[0], factor * widths[1]) / 2
        assert interval.high - interval.low == pytest.approx(together, rel=0.05)


def test_no_mean_over_tasks_where_one_is_unbounded_or_says_too_little() -> None:
    generator = np.random.default_rng(0)
    good, errors = classes(FIVE, "accuracy")[0](generator), similarities("mse")(generator)
    assert overall_intervals({"a": good, "b": errors}) == (None, None)
    found, _ = overall_intervals({"a": good, "b": similarities("pearson")(generator).take(np.arange(3))})
    assert found is not None
    assert found.low is None
    assert "b: 3 examples" in str(found.reason)


def test_intervals_hold_the_true_score() -> None:
    assert 0.91 <= coverage("two.f1", 400) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COVERED if name not in LONG])
def test_intervals_hold_the_true_score_in_95_of_100_samples(name: str) -> None:
    assert 0.94 <= coverage(name, SIMULATIONS) <= 0.96
