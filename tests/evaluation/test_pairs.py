"""Tests of two models: published examples, exact binomials, and how often they are wrong."""

import numpy as np
import pytest
from scipy import stats
from simulated import REJECTED, rejections

from manyhead.evaluation.statistics.pairs import holm, mcnemar_p, permutation_p, pseudo_values_p, williams_p


def test_mcnemars_mid_p_is_the_exact_p_less_half_the_probability_of_what_was_seen() -> None:
    for fewer, more in ((0, 6), (1, 7), (12, 25), (300, 340)):
        exact = stats.binomtest(fewer, fewer + more).pvalue
        mid = exact - stats.binom.pmf(fewer, fewer + more, 0.5)
        assert mcnemar_p(fewer, more) == mcnemar_p(more, fewer) == pytest.approx(mid)


def test_mcnemars_mid_p_of_a_published_example() -> None:
    """Fagerland, Lydersen & Laake (2013): 1 against 7 discordant pairs, exact p 0.0703, mid-p 0.0391."""
    assert mcnemar_p(1, 7) == pytest.approx(0.0391, abs=5e-5)
    assert mcnemar_p(0, 0) == mcnemar_p(4, 4) == 1


@pytest.mark.parametrize(
    ("first", "second", "between", "n", "statistic"),
    [(0.4, 0.5, 0.1, 103, 0.89), (0.2, 0.5, 0.1, 315, 4.4950)],
    ids=["Steiger's example in R's psych", "the example in R's cocor"],
)
def test_williams_of_published_examples(first: float, second: float, between: float, n: int, statistic: float) -> None:
    p = williams_p(first, second, between, n)
    assert stats.t.isf(p / 2, n - 3) == pytest.approx(statistic, abs=10 ** -(2 if statistic < 1 else 4) / 1.5)
    assert williams_p(second, first, between, n) == p


def test_williams_of_predictions_that_are_the_same() -> None:
    assert williams_p(0.5, 0.5, 1.0, 30) == 1


def test_the_jackknifes_test_is_students_of_the_pseudo_values() -> None:
    values = np.random.default_rng(0).normal(0.1, 1, 80)
    assert pseudo_values_p(values) == pytest.approx(stats.ttest_1samp(values, 0)[1])
    assert pseudo_values_p(np.zeros(5)) == 1


def test_holm_rejects_step_by_step() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({}) == {}
    assert holm({"a": 0.7, "b": 0.9}) == {"a": 1, "b": 1}


def test_a_permutation_p_is_never_0() -> None:
    assert permutation_p(1.0, np.zeros(99)) == 0.01
    assert permutation_p(0.0, np.zeros(99)) == 1


def test_equal_models_are_seldom_told_apart() -> None:
    for rate in rejections("accuracy", 400).values():
        assert 0.02 <= rate <= 0.09


@pytest.mark.slow
@pytest.mark.parametrize("metric", REJECTED)
def test_equal_models_are_told_apart_in_about_5_of_100_samples(metric: str) -> None:
    """Fewer samples than docs/evidence.md tells of, so the limits, 4 and 6, are wider by two standard errors."""
    for test, rate in rejections(metric, 2_000).items():
        assert rate <= 0.06 + 0.01, test
        if metric in ("pearson", "spearman", "mse"):
            assert rate >= 0.04 - 0.01, test
