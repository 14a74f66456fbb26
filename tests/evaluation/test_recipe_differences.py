"""Recipes by several runs: the two-way analysis against its textbook form, and how often it is wrong."""

import math

import numpy as np
import pytest
from scipy import stats
from simulated import RECIPES, recipe_rejections

from manyhead.evaluation.statistics.runs import ExampleVariance, example_variance, run_difference


def table(runs: int, n: int, generator: np.random.Generator) -> np.ndarray:
    """(examples, runs): effects of examples, of runs, and of both."""
    return generator.normal(size=(n, 1)) + 0.1 * generator.normal(size=runs) + 0.5 * generator.normal(size=(n, runs))


def test_parts_of_the_variance_are_mean_squares_of_the_two_way_table() -> None:
    generator = np.random.default_rng(0)
    sides = [table(3, 40, generator), table(5, 40, generator)]
    found = example_variance(sides, np.ones(40, dtype=np.int64))
    squares = 0.0
    for side in sides:
        for example in range(40):
            for run in range(side.shape[1]):
                rest = side[example, run] - side[example].mean() - side[:, run].mean() + side.mean()
                squares += rest**2
    mean_square = squares / ((2 + 4) * 39)
    assert found.interaction == pytest.approx(mean_square * (1 / 3 + 1 / 5) / 40)
    difference = sides[1].mean(axis=1) - sides[0].mean(axis=1)
    assert found.examples == pytest.approx(difference.var(ddof=1) / 40)


def test_units_stand_for_as_many_examples() -> None:
    generator = np.random.default_rng(1)
    sides, counts = [table(2, 9, generator), table(3, 9, generator)], generator.integers(1, 5, size=9)
    repeated = example_variance([np.repeat(side, counts, axis=0) for side in sides], np.ones(counts.sum(), dtype=int))
    found = example_variance(sides, counts)
    assert (found.examples, found.interaction) == pytest.approx((repeated.examples, repeated.interaction))


def test_without_examples_of_its_own_it_is_students_t_test() -> None:
    first, second = np.array([0.5, 0.52, 0.49]), np.array([0.54, 0.55, 0.57, 0.53])
    found = run_difference([first, second], ExampleVariance(0.0, 0.0))
    theirs = stats.ttest_ind(second, first)
    ends = theirs.confidence_interval(0.95)
    assert found.p == pytest.approx(theirs[1])
    assert found.ends(0.95) == pytest.approx((ends.low, ends.high))


def test_without_a_difference_between_seeds_it_is_the_normal_test_over_examples() -> None:
    same = np.array([0.5, 0.5])
    found = run_difference([same, same + 0.02], ExampleVariance(1e-4, 0.0))
    assert found.freedom == math.inf
    assert found.p == pytest.approx(2 * stats.norm.sf(2))
    assert found.runs_needed(0.95) is None
    factor = found.examples_factor(0.95)
    assert factor == pytest.approx(((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) / 2) ** 2, rel=3e-3)


def test_runs_that_score_exactly_the_same_keep_all_that_the_examples_add() -> None:
    same = np.array([0.5, 0.5, 0.5])
    for side in (same, same[:1]):
        found = run_difference([side, same + 0.02], ExampleVariance(1e-4, 2e-4))
        assert (found.variance, found.freedom, found.interaction) == (1e-4, math.inf, 0)


def test_seeds_that_vary_more_than_the_difference_are_not_outnumbered_by_examples() -> None:
    found = run_difference([np.array([0.4, 0.5, 0.6]), np.array([0.42, 0.52, 0.62])], ExampleVariance(1e-6, 0.0))
    assert found.examples_factor(0.95) is None
    needed = found.runs_needed(0.95)
    assert needed is not None
    assert 300 < needed < 500  # 2 (2.8 * 0.1 / 0.02)^2
    hopeless = run_difference([np.array([0.4, 0.5]), np.array([0.401, 0.501])], ExampleVariance(1e-4, 0.0))
    assert (hopeless.examples_factor(0.95), hopeless.runs_needed(0.95)) == (None, None)


def test_more_examples_leave_fewer_degrees_of_freedom() -> None:
    """With 2 and 2 runs the seeds' two degrees count for more, the less the examples add to the variance."""
    found = run_difference([np.array([0.5, 0.505]), np.array([0.53, 0.535])], ExampleVariance(1e-3, 0.0))
    factor = found.examples_factor(0.95)
    assert factor is not None
    more = run_difference([np.array([0.5, 0.505]), np.array([0.53, 0.535])], ExampleVariance(1e-3 / factor, 0.0))
    assert more.freedom < found.freedom / 2
    assert more.detectable(0.95) == pytest.approx(found.value, rel=0.01)


def test_one_run_borrows_the_variance_of_the_other_side() -> None:
    several = np.array([0.5, 0.52, 0.54])
    found = run_difference([np.array([0.6]), several], ExampleVariance(0.0, 0.0))
    assert found.variance == pytest.approx(np.var(several, ddof=1) * (1 + 1 / 3))
    assert found.freedom == 2


def test_equal_recipes_are_seldom_told_apart() -> None:
    assert 0.01 <= recipe_rejections((3, 3), 0.01, simulations=300) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_equal_recipes_are_told_apart_in_about_5_of_100_samples(name: str) -> None:
    """Fewer samples than docs/evidence.md tells of, so the limits, 4 and 6, are wider by two standard errors."""
    runs, spread, overall = RECIPES[name]
    assert 0.04 - 0.014 <= recipe_rejections(runs, spread, overall=overall, simulations=1_000) <= 0.06 + 0.014
