"""Made-up models whose true scores are known, and how often intervals and tests are right about them.

`python tests/evaluation/simulated.py [NAME...]` prints the rates that docs/evidence.md quotes.
"""

import sys
import time
from collections.abc import Callable
from functools import cache

import numpy as np

from manyhead.evaluation.metrics import METRICS, Kind
from manyhead.evaluation.scored import Scored
from manyhead.evaluation.statistics.differences import model_pair, overall_of_recipes, recipe_pair
from manyhead.evaluation.statistics.intervals import combined, mapping, resampled_score, score_of
from manyhead.evaluation.statistics.samples import sample_of
from manyhead.evaluation.statistics.sums import class_scores

SIMULATIONS = 10_000
N = 500
RESAMPLES = 399
Make = Callable[[np.random.Generator], Scored]

# How often each class (rows) is predicted as each (columns): like SST's five classes, and Quora's two.
FIVE = np.array([[6, 5, 1, 0.5, 0.1], [4, 12, 6, 3, 0.3], [1, 6, 7, 5, 1], [0.3, 3, 4, 14, 4], [0.1, 1, 1, 6, 8]])
TWO = np.array([[54.0, 8.3], [7.1, 31.0]])
SHARES = {"five": FIVE, "two": TWO}


def scored(
    kind: Kind, metric: str, targets: np.ndarray, values: np.ndarray, *, task: str = "task", n_classes: int = 5
) -> Scored:
    labels = ("x",) * n_classes if kind == "classification" else ()
    ids = list(map(str, range(len(targets))))
    return Scored(task, kind, metric, ids, targets, values, labels=labels, range=(0, 5))


def classes(shares: np.ndarray, metric: str) -> tuple[Make, float]:
    """Classes predicted as ``shares`` say, and the true score."""
    size, flat = len(shares), shares.ravel() / shares.sum()
    sums = np.concatenate([shares.sum(1), np.diag(shares), shares.sum(0)])

    def make(generator: np.random.Generator) -> Scored:
        cells = generator.choice(size * size, p=flat, size=N)
        return scored("classification", metric, cells // size, cells % size, n_classes=size)

    return make, float(class_scores(metric, size)(sums)[0])


def similarities(metric: str) -> Make:
    """Scores from 0 to 5 as STS has them, predicted within that range."""
    return lambda generator: _similarities(metric, generator, N)


@cache
def true_similarity(metric: str) -> float:
    """The score of four million of them."""
    return score_of(_similarities(metric, np.random.default_rng(5), 4_000_000))


def _similarities(metric: str, generator: np.random.Generator, n: int) -> Scored:
    targets = np.round(generator.beta(1.3, 1.1, n) * 5, 1)
    values = np.clip(targets * 0.8 + 0.6 + generator.normal(size=n) * 0.8, 0, 5)
    return scored("regression", metric, targets, values, task="sts")


def coverage(name: str, simulations: int = SIMULATIONS) -> float:
    """How often the 95 % interval of a score holds the true one."""
    if name == "overall":
        values = similarities("pearson"), true_similarity("pearson")
        parts = [classes(FIVE, "accuracy"), classes(TWO, "accuracy"), values]
    else:
        shares, _, metric = name.partition(".")
        is_sts = shares == "sts"
        values = (similarities(metric), true_similarity(metric)) if is_sts else classes(SHARES[shares], metric)
        parts = [values]
    held = 0
    truth = float(np.mean([factor * true + shift for make, true in parts for factor, shift in [_mapping(make, name)]]))
    for seed in range(simulations):
        generator = np.random.default_rng([7, seed])
        found = [
            resampled_score(sample_of([make(generator)]), generator, RESAMPLES).scaled(*_mapping(make, name))
            for make, _ in parts
        ]
        low, high = combined(found).interval(0.95)
        held += low - 1e-12 <= truth <= high + 1e-12
    return held / simulations


def _mapping(make: Make, name: str) -> tuple[float, float]:
    return mapping(make(np.random.default_rng(0)).metric) if name == "overall" else (1.0, 0.0)


def rejections(name: str, simulations: int = SIMULATIONS // 2) -> dict[str, float]:
    """How often each test finds a difference at 5 % between two models that are equally good."""
    counts: dict[str, int] = {}
    for seed in range(simulations):
        generator = np.random.default_rng([11, seed])
        pair = model_pair(*_equals(name, generator), resamples=RESAMPLES, seed=seed)
        for test, p in pair.difference(0.95).p_values.items():
            counts[test] = counts.get(test, 0) + (p <= 0.05)
    return {test: count / simulations for test, count in counts.items()}


def _equals(metric: str, generator: np.random.Generator) -> tuple[Scored, Scored]:
    """Two models that err alike on some examples, and equally often."""
    if METRICS[metric].fits("classification", 2):
        targets = generator.integers(2, size=N)
        shared, own = generator.random(N) < 0.5, generator.random((3, N)) < 0.75
        first, second = (np.where(np.where(shared, own[2], each), targets, 1 - targets) for each in own[:2])
        return (
            scored("classification", metric, targets, first, n_classes=2),
            scored("classification", metric, targets, second, n_classes=2),
        )
    targets = np.round(generator.beta(1.3, 1.1, N) * 5, 1)
    noise = generator.normal(size=(3, N))
    first, second = (targets + 0.6 * (noise[2] + each) for each in noise[:2])
    return scored("regression", metric, targets, first), scored("regression", metric, targets, second)


def recipe_rejections(
    runs: tuple[int, int], spread: float, *, overall: bool = False, simulations: int = SIMULATIONS // 2
) -> float:
    """How often the t test finds a difference at 5 % between recipes that are equally good.

    Args:
        runs: Of each side.
        spread: Standard deviation over seeds of a run's true accuracy (and of its correlation, roughly).
        overall: Of the mean over three tasks in place of one task; a seed is good or bad for all of them.
    """
    found = 0
    for seed in range(simulations):
        generator = np.random.default_rng([13, seed])
        luck = generator.normal(size=sum(runs)) * spread
        tasks = {"a": _runs(runs, luck, generator)}
        if overall:
            tasks |= {"b": _runs(runs, luck, generator), "c": _score_runs(runs, luck, generator)}
        pairs = {task: recipe_pair(*sides) for task, sides in tasks.items()}
        metrics = {task: sides[0][0].metric for task, sides in tasks.items()}
        pair = overall_of_recipes(pairs, metrics) if overall else pairs["a"]
        found += pair.difference(0.95).p_values["t"] <= 0.05
    return found / simulations


Sides = tuple[list[Scored], list[Scored]]


def _runs(runs: tuple[int, int], luck: np.ndarray, generator: np.random.Generator) -> Sides:
    targets = generator.integers(2, size=N)
    ease = generator.beta(3, 1.5, N)
    right = generator.random((len(luck), N)) < np.clip(ease + luck[:, None], 0, 1)
    columns = np.where(right, targets, 1 - targets)
    every = [scored("classification", "accuracy", targets, column, n_classes=2) for column in columns]
    return every[: runs[0]], every[runs[0] :]


def _score_runs(runs: tuple[int, int], luck: np.ndarray, generator: np.random.Generator) -> Sides:
    targets = generator.beta(1.3, 1.1, N) * 5
    common = generator.normal(size=N)
    noise = (common + generator.normal(size=(len(luck), N))) * (0.6 - luck[:, None])
    every = [scored("regression", "pearson", targets, targets + row) for row in noise]
    return every[: runs[0]], every[runs[0] :]


COVERED = (
    *("five.accuracy", "five.macro_f1", "five.mcc", "two.accuracy", "two.macro_f1", "two.f1", "two.mcc"),
    *("sts.exact_match", "sts.pearson", "sts.mse", "sts.spearman", "overall"),
)
REJECTED = ("accuracy", "macro_f1", "f1", "mcc", "exact_match", "pearson", "spearman", "mse")
RECIPES = {
    "3 and 3 runs, seeds alike": ((3, 3), 0.0, False),
    "3 and 3 runs, seeds differ by 0.01": ((3, 3), 0.01, False),
    "3 and 3 runs, seeds differ by 0.05": ((3, 3), 0.05, False),
    "2 and 5 runs, seeds differ by 0.01": ((2, 5), 0.01, False),
    "1 and 3 runs, seeds differ by 0.01": ((1, 3), 0.01, False),
    "3 and 3 runs, 3 tasks, seeds alike": ((3, 3), 0.0, True),
    "3 and 3 runs, 3 tasks, seeds differ by 0.01": ((3, 3), 0.01, True),
}


def main(wanted: list[str]) -> None:
    measures: dict[str, Callable[[], object]] = {
        **{f"coverage {name}": lambda name=name: coverage(name) for name in COVERED},
        **{f"rejections {name}": lambda name=name: rejections(name) for name in REJECTED},
        **{
            f"recipes {name}": lambda how=how: recipe_rejections(how[0], how[1], overall=how[2])
            for name, how in RECIPES.items()
        },
    }
    for name, measure in measures.items():
        if not wanted or any(name.startswith(each) for each in wanted):
            began = time.perf_counter()
            print(f"{name}: {measure()} ({time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
