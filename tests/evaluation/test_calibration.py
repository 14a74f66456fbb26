"""Calibration: known answers, sklearn, and a temperature that finds what was planted and changes no class."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from scored_makers import classes, random_classes
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from manyhead.evaluation.errors.calibration import (
    BINS,
    best_temperature,
    calibration_of,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    tempered,
)


def test_expected_calibration_error_of_known_cases() -> None:
    sure = np.array([[0.9, 0.1]] * 10)
    assert expected_calibration_error(sure, np.array([0] * 9 + [1])) == pytest.approx(0)
    assert expected_calibration_error(sure, np.array([0] * 5 + [1] * 5)) == pytest.approx(0.4)
    assert expected_calibration_error(sure, np.array([1] * 10)) == pytest.approx(0.9)
    # Two bins, weighted by their examples: 4 at .9 of which 3 are right, 6 at .6 of which all are.
    two = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 6)
    targets = np.array([0, 0, 0, 1] + [0] * 6)
    assert expected_calibration_error(two, targets) == pytest.approx(0.4 * 0.15 + 0.6 * 0.4)
    assert calibration_of(classes(targets.tolist(), two)).mce == pytest.approx(0.4)


@pytest.mark.parametrize("size", [2, 5])
def test_scores_are_those_of_sklearn(size: int) -> None:
    scored = random_classes(3, 400, size)
    assert scored.probabilities is not None
    found = calibration_of(scored)
    labels = list(range(size))
    assert found.nll == pytest.approx(log_loss(scored.targets, scored.probabilities, labels=labels))
    if size == 2:
        assert found.brier == pytest.approx(2 * brier_score_loss(scored.targets, scored.probabilities[:, 1]))
    else:
        one_hot = np.eye(size)[scored.targets]
        each = [brier_score_loss(one_hot[:, k], scored.probabilities[:, k]) for k in labels]
        assert found.brier == pytest.approx(sum(each))
    right = scored.values == scored.targets
    true, predicted = calibration_curve(right, scored.probabilities.max(1), n_bins=BINS)
    filled = [each for each in found.bins if each.n]
    assert [each.accuracy for each in filled] == pytest.approx(true.tolist())
    assert [each.confidence for each in filled] == pytest.approx(predicted.tolist())
    assert sum(each.n for each in filled) == scored.n


@pytest.mark.parametrize("top", [0.0, 1 / 15, 0.2, 1.0])
def test_a_probability_on_an_edge_is_in_one_bin(top: float) -> None:
    bins = reliability(np.array([[top, 0.0]]), np.array([0]))
    assert [each.n for each in bins].count(1) == 1
    assert all(each.low < top <= each.high for each in bins if each.n) or top == 0


def test_a_sure_mistake_does_not_make_the_likelihood_infinite() -> None:
    assert negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(36.04, abs=0.01)


@pytest.mark.parametrize("planted", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("size", [2, 5])
def test_a_planted_temperature_is_found(planted: float, size: int) -> None:
    generator = np.random.default_rng(5)
    logits = generator.normal(scale=2, size=(8000, size))
    targets = np.array([generator.choice(size, p=each) for each in softmax(logits, axis=1)])
    found = fit_temperature(log_softmax(logits * planted, axis=1), targets)
    assert found.temperature == pytest.approx(planted, rel=0.06)
    assert found.nll is not None
    assert found.ece is not None
    assert found.nll[1] <= found.nll[0] + 1e-3
    assert found.ece[1] < 0.03


def test_the_best_temperature_is_the_best_of_a_grid() -> None:
    scored = random_classes(1, 200, 3, sure=4.0)
    assert scored.probabilities is not None
    logs = np.log(scored.probabilities)
    found = best_temperature(logs, scored.targets)
    assert found is not None
    grid = np.exp(np.linspace(np.log(0.05), np.log(50), 3001))
    losses = [negative_log_likelihood(tempered(logs, each), scored.targets) for each in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.005)


def test_what_is_told_of_the_effect_comes_from_rows_that_did_not_fit() -> None:
    """With two folds a coin's temperature does not look better than it is; with other rows, these are measured."""
    scored, others = (random_classes(seed, 60, 4, sure=6.0, right=0.3) for seed in (7, 8))
    assert scored.probabilities is not None
    assert others.probabilities is not None
    logs, other_logs = np.log(scored.probabilities), np.log(others.probabilities)
    crossed = fit_temperature(logs, scored.targets)
    assert crossed.temperature is not None
    assert crossed.nll is not None
    in_sample = negative_log_likelihood(tempered(logs, crossed.temperature), scored.targets)
    assert crossed.nll[1] > in_sample
    apart = fit_temperature(logs, scored.targets, (other_logs, others.targets))
    assert apart.temperature == crossed.temperature
    assert apart.nll is not None
    expected = negative_log_likelihood(tempered(other_logs, crossed.temperature), others.targets)
    assert apart.nll == (pytest.approx(negative_log_likelihood(others.probabilities, others.targets)), expected)


def test_no_temperature_without_rows_classes_numbers_or_an_optimum() -> None:
    few = random_classes(0, 49, 2)
    assert few.probabilities is not None
    assert fit_temperature(np.log(few.probabilities), few.targets).reason == "49 rows; a temperature needs 50"
    enough = random_classes(0, 50, 2)
    assert enough.probabilities is not None
    logs = np.log(enough.probabilities)
    assert fit_temperature(logs, enough.targets).temperature is not None
    assert fit_temperature(logs, enough.targets * 0).reason == "all rows are of one class"
    broken = logs.copy()
    broken[3, 0] = np.nan
    assert fit_temperature(broken, enough.targets).reason == "some probabilities are no finite numbers"
    perfect = log_softmax(np.eye(2)[enough.targets] * 3, axis=1)
    assert "no temperature between" in (fit_temperature(perfect, enough.targets).reason or "")
    assert fit_temperature(perfect, enough.targets).nll is None
    contrary = log_softmax(-np.eye(2)[enough.targets] * 3, axis=1)
    assert fit_temperature(contrary, enough.targets).temperature is None


@given(
    st.lists(st.lists(st.floats(-30, 30, width=32), min_size=4, max_size=4), min_size=1, max_size=20),
    st.floats(0.01, 100),
)
def test_no_temperature_makes_another_class_more_probable(logits: list[list[float]], temperature: float) -> None:
    logs = log_softmax(np.array(logits), axis=1)
    after = tempered(logs, temperature)
    np.testing.assert_allclose(after.sum(1), 1)
    best = logs.argmax(1)
    assert (after[np.arange(len(after)), best] == after.max(1)).all()
