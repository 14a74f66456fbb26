import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn import metrics as sk

from manyhead.evaluation.metrics import (
    METRICS,
    accuracy,
    constant_predictions,
    constant_sides,
    exact_match,
    f1,
    macro_f1,
    majority_baseline,
    mcc,
    mse,
    overall,
    pearson,
    spearman,
    task_scores,
)

SCALES = [1e-10, 1e-3, 1.0, 1e5, 1e12]


def reference(function: Callable[..., Any], *columns: np.ndarray, **options: Any) -> float:
    """What another library says, without what it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = function(*columns, **options)
    return float(getattr(found, "statistic", found))


@st.composite
def class_columns(draw: st.DrawFn, n_classes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(1, 40))
    top = draw(st.integers(1, 6)) if n_classes is None else n_classes
    dtype = draw(st.sampled_from([np.int64, np.int32, np.uint8]))
    column = hnp.arrays(dtype, n, elements=st.integers(0, top - 1))
    return draw(column), draw(column)


@st.composite
def number_columns(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Columns on a grid, so that ties occur and no spread drowns in rounding; each at its own scale."""
    n = draw(st.integers(2, 40))
    column = hnp.arrays(np.int64, n, elements=st.integers(-1000, 1000))
    return draw(column) * draw(st.sampled_from(SCALES)), draw(column) * draw(st.sampled_from(SCALES))


@given(class_columns())
def test_classification_agrees_with_sklearn(columns: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, actual = columns
    assert accuracy(predicted, actual) == pytest.approx(reference(sk.accuracy_score, actual, predicted), abs=1e-12)
    expected = reference(sk.f1_score, actual, predicted, average="macro", zero_division=0)
    assert macro_f1(predicted, actual) == pytest.approx(expected, abs=1e-12)
    assert mcc(predicted, actual) == pytest.approx(reference(sk.matthews_corrcoef, actual, predicted), abs=1e-12)


@given(class_columns(n_classes=2))
def test_f1_of_two_classes_agrees_with_sklearn(columns: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, actual = columns
    assert f1(predicted, actual) == pytest.approx(reference(sk.f1_score, actual, predicted, zero_division=0), abs=1e-12)


@given(number_columns())
def test_correlations_agree_with_scipy_at_any_scale(columns: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, actual = columns
    if constant_predictions(predicted) or constant_predictions(actual):
        assert pearson(predicted, actual) == 0
        assert spearman(predicted, actual) == 0
        return
    assert pearson(predicted, actual) == pytest.approx(reference(stats.pearsonr, predicted, actual), abs=1e-12)
    assert spearman(predicted, actual) == pytest.approx(reference(stats.spearmanr, predicted, actual), abs=1e-12)


@given(number_columns())
def test_mse_agrees_with_sklearn(columns: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, actual = columns
    assert mse(predicted, actual) == pytest.approx(sk.mean_squared_error(actual, predicted), rel=1e-12)


@given(number_columns(), st.sampled_from(SCALES), st.integers(-100, 100))
def test_pearson_ignores_scale_and_shift(columns: tuple[np.ndarray, np.ndarray], scale: float, shift: int) -> None:
    predicted, actual = columns
    unit = np.abs(predicted).max()
    moved = (predicted + shift * unit) * scale
    assert pearson(moved, actual) == pytest.approx(pearson(predicted, actual), abs=1e-9)
    assert pearson(-predicted, actual) == pytest.approx(-pearson(predicted, actual), abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_order_of_examples_does_not_matter(name: str) -> None:
    generator = np.random.default_rng(3)
    predicted, actual = generator.integers(0, 2, (2, 50))
    order = generator.permutation(50)
    score = METRICS[name].function
    assert score(predicted[order], actual[order]) == pytest.approx(score(predicted, actual), abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_prediction_has_the_best_value(name: str) -> None:
    column = np.array([0, 1, 1, 0, 1])
    assert METRICS[name].function(column, column) == pytest.approx(float(METRICS[name].higher_is_better))


@pytest.mark.parametrize("name", ["pearson", "spearman", "mcc"])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_correlations_with_a_constant_are_zero(name: str, n: int) -> None:
    constant, other = np.full(n, 3), np.arange(n)
    assert METRICS[name].function(constant, other) == 0
    assert METRICS[name].function(other, constant) == 0
    assert METRICS[name].function(constant, constant) == 0


def test_a_constant_whose_mean_rounds_is_still_constant() -> None:
    assert pearson([0.1] * 10, np.arange(10)) == 0
    assert constant_predictions([0.1] * 10)
    assert not constant_predictions([0.1, 0.1, 0.1000001])


def test_what_makes_a_correlation_zero_is_told() -> None:
    assert constant_sides([1, 1], [1, 2]) == ("predictions",)
    assert constant_sides([0.1, 0.2], [0.3, 0.3]) == ("targets",)
    assert constant_sides([2], [3]) == ("predictions", "targets")
    assert constant_sides([1, 2], [3, 4]) == ()


def test_two_points_correlate_fully() -> None:
    assert pearson([1e-10, 2e-10], [5e11, 1e12]) == pytest.approx(1, abs=1e-12)
    assert pearson([2, 1], [0.0, 5e-324]) == pytest.approx(-1, abs=1e-12)
    assert pearson([1, math.nextafter(1, 2)], [4, 5]) == pytest.approx(1, abs=1e-12)
    assert spearman([-math.inf, 3], [1, 0]) == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "target", "same"),
    [
        (2.5, 3.0, True),
        (2.5, 2.5, True),
        (2.4999999, 2.5, False),
        (0.49999999999999994, 0.0, True),
        (-3.0, 0.4, True),
        (7.2, 4.5, True),
        (4.4999, 5.0, False),
        (math.nan, 0.0, False),
        (math.inf, 5.0, True),
    ],
)
def test_exact_match_rounds_halves_up_and_clips_predictions(prediction: float, target: float, same: bool) -> None:
    assert exact_match([prediction], [target], (0, 5)) == same


def test_exact_match_without_a_range_does_not_clip() -> None:
    assert exact_match([-0.5, -0.51, 1e6, math.inf], [0.0, -1.0, 1e6, 5.0]) == 0.75


@given(number_columns())
def test_exact_match_of_halves_agrees_with_decimal_rounding(columns: tuple[np.ndarray, np.ndarray]) -> None:
    halves, targets = np.rint(columns[0] % 20) / 2, np.rint(columns[1] % 10)
    expected = np.mean((np.rint(halves * 2).astype(int) + 1) // 2 == targets)
    assert exact_match(halves, targets) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["pearson", "spearman", "mse"])
def test_what_is_not_a_number_gives_no_number(name: str) -> None:
    assert math.isnan(METRICS[name].function([1.0, math.nan, 3.0], [1.0, 2.0, 3.0]))


def test_infinite_predictions_warn_of_nothing() -> None:
    assert math.isnan(pearson([1.0, math.inf, 3.0], [1.0, 2.0, 3.0]))
    assert mse([math.inf, 1e200], [0.0, 0.0]) == math.inf


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("predicted", "actual"), [([], []), ([1, 0], [1]), ([[1, 0]], [[1, 0]]), (1, 1)], ids=["none", "odd", "2d", "0d"]
)
def test_other_shapes_are_refused(name: str, predicted: object, actual: object) -> None:
    with pytest.raises(ValueError, match="columns of one length"):
        METRICS[name].function(predicted, actual)


@pytest.mark.parametrize("column", [[0.0, 1.0], [-1, 0], ["a", "b"]])
def test_classes_must_be_indices(column: list[Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        macro_f1(column, [0, 1])


def test_f1_refuses_a_third_class() -> None:
    with pytest.raises(ValueError, match="two classes"):
        f1([0, 2], [0, 1])


def test_task_scores_gives_every_metric_that_fits() -> None:
    two = task_scores("classification", [0, 1, 1], [0, 1, 0], n_classes=2)
    five = task_scores("classification", [0, 1, 1], [0, 1, 0], n_classes=5)
    score = task_scores("regression", [-9.0, 1.0, 2.0], [0.0, 1.0, 4.0], range=(0, 5))
    assert two.keys() == {"accuracy", "macro_f1", "f1", "mcc", "n"}
    assert five.keys() == {"accuracy", "macro_f1", "mcc", "n"}
    assert score.keys() == {"pearson", "spearman", "exact_match", "mse", "n"}
    assert two["n"] == 3
    assert score["exact_match"] == pytest.approx(2 / 3)
    assert task_scores("regression", [], []) == {"n": 0}


def test_overall_is_the_mean_with_correlations_mapped() -> None:
    scores = {"sst": {"accuracy": 0.5, "n": 9}, "para": {"accuracy": 0.8}, "sts": {"pearson": 0.6, "mse": 1.0}}
    primary = {"sst": "accuracy", "para": "accuracy", "sts": "pearson"}
    assert overall(scores, primary) == pytest.approx((0.7, 1.9 / 3))


@pytest.mark.parametrize(
    ("scores", "primary"),
    [
        ({}, {}),
        ({"a": {"accuracy": 0.5}}, {"a": "accuracy", "b": "accuracy"}),
        ({"a": {"accuracy": 0.5}, "b": {"n": 0}}, {"a": "accuracy", "b": "accuracy"}),
        ({"a": {"mse": 0.5}}, {"a": "mse"}),
        ({"a": {"pearson": math.nan}}, {"a": "pearson"}),
    ],
)
def test_overall_is_none_where_there_is_no_such_mean(scores: dict, primary: dict) -> None:
    assert overall(scores, primary) == (None, None)


def test_majority_baseline() -> None:
    assert majority_baseline("classification", [2, 1, 2, 0], [0, 1]).tolist() == [2, 2]
    assert majority_baseline("classification", [1, 0], [0]).tolist() == [0]
    assert majority_baseline("regression", [0, 5, 1], [0.0, 1.0]).tolist() == [2.0, 2.0]
    with pytest.raises(ValueError, match="at least one"):
        majority_baseline("regression", [], [1.0])


@settings(max_examples=20)
@given(class_columns(n_classes=4))
def test_no_constant_beats_the_majority_on_its_own_rows(columns: tuple[np.ndarray, np.ndarray]) -> None:
    _, actual = columns
    best = accuracy(majority_baseline("classification", actual, actual), actual)
    assert all(best >= accuracy(np.full(len(actual), index), actual) for index in range(4))


def test_many_rows_are_quick() -> None:
    generator = np.random.default_rng(0)
    classes = generator.integers(0, 2000, (2, 100_000))
    values = generator.normal(size=(2, 100_000))
    start = time.process_time()
    task_scores("classification", *classes, n_classes=2000)
    task_scores("regression", *values, range=(-1, 1))
    assert time.process_time() - start < 2
