"""Two sides compared: what changes nothing, what flips the sign, and samples that say little."""

import json
import math

import numpy as np
import pytest
from simulated import scored

from manyhead.evaluation.metrics import METRICS
from manyhead.evaluation.scored import Scored
from manyhead.evaluation.statistics.comparison import Comparison, compare_sides
from manyhead.evaluation.statistics.differences import discordant

N = 600
Run = dict[str, Scored]


def run(skill: float, seed: int, n: int = N) -> Run:
    """Three tasks; targets are the same whatever the skill and seed."""
    data, own = np.random.default_rng(0), np.random.default_rng([1, seed])
    classes, pairs, scores = data.integers(5, size=n), data.integers(2, size=n), np.round(data.random(n) * 5, 1)
    guesses = np.where(own.random(n) < skill, classes, (classes + 1) % 5)
    return {
        "sst": scored("classification", "accuracy", classes, guesses, task="sst"),
        "para": scored(
            "classification", "f1", pairs, np.where(own.random(n) < skill, pairs, 1 - pairs), task="para", n_classes=2
        ),
        "sts": scored("regression", "pearson", scores, scores * skill + own.normal(size=n), task="sts"),
    }


def compared(first: list[Run], second: list[Run], names: tuple[str, str] = ("baseline", "other")) -> Comparison:
    return compare_sides(first, second, resamples=800, names=names)


def test_a_better_model_helped_and_a_worse_one_hurt() -> None:
    weak, strong = run(0.5, 1), run(0.7, 2)
    there, back = compared([weak], [strong]), compared([strong], [weak])
    for one, other in zip([*there.tasks, there.overall], [*back.tasks, back.overall], strict=True):
        assert one is not None
        assert other is not None
        assert one.difference.value == pytest.approx(-other.difference.value)
        assert one.p == pytest.approx(other.p, abs=0.02)
        assert one.baseline == other.other
    assert [task.verdict for task in there.tasks] == ["helped", "helped", "helped"]
    assert [task.verdict for task in back.tasks] == ["hurt", "hurt", "hurt"]
    assert {name for task in there.tasks for name in task.p_values} == {"permutation", "mcnemar", "williams"}
    assert "two models" in there.tasks[0].sentence
    assert there.about == "models"


def test_less_is_better_for_errors() -> None:
    targets = np.random.default_rng(0).random(N) * 5
    noise = np.random.default_rng(1).normal(size=N)
    sides = [{"sts": scored("regression", "mse", targets, targets + scale * noise)} for scale in (1.0, 0.8)]
    found = compared(sides[:1], sides[1:]).tasks[0]
    assert found.other.value < found.baseline.value
    assert found.difference.value > 0
    assert found.verdict == "helped"
    assert compared(sides[:1], sides[1:]).overall is None


def test_the_same_predictions_are_no_evidence_and_need_nothing() -> None:
    for runs in (1, 3):
        sides = [run(0.6, seed) for seed in range(runs)]
        found = compared(sides, sides)
        for task in found.tasks:
            assert (task.difference.value, task.verdict, task.examples_needed) == (0, "no evidence", None)
            assert task.p == 1
        assert found.overall is not None
        assert found.overall.verdict == "no evidence"


def test_several_runs_speak_of_recipes() -> None:
    found = compared([run(0.5, 1), run(0.5, 2), run(0.5, 3)], [run(0.62, 4), run(0.62, 5)], names=("one", "many"))
    assert found.about == "recipes"
    for task in [*found.tasks, found.overall]:
        assert task is not None
        assert task.verdict == "helped"
        assert task.test == "t"
        assert "recipes, by 3 and 2 runs" in task.sentence
        assert task.difference.low is not None
        assert task.difference.low > 0


def test_the_order_of_examples_and_other_tasks_change_nothing() -> None:
    first, second = run(0.6, 1), run(0.62, 2)
    order = np.random.default_rng(9).permutation(N)
    mixed = [{name: each.take(order) for name, each in side.items()} for side in (first, second)]
    whole, again, other = compared([first], [second]), compared([first], [second]), compared(mixed[:1], mixed[1:])
    assert whole == again
    assert [task.p for task in whole.tasks] == [task.p for task in other.tasks]
    alone = compared([{"sts": first["sts"]}], [{"sts": second["sts"]}])
    assert (alone.tasks[0].p, alone.tasks[0].difference) == (whole.tasks[2].p, whole.tasks[2].difference)


def test_tasks_of_one_side_are_named_and_left_out() -> None:
    found = compared([run(0.6, 1)], [{"sst": run(0.6, 2)["sst"]}], names=("all", "one"))
    assert [task.task for task in found.tasks] == ["sst"]
    assert found.left_out == {"all": ["para", "sts"]}
    assert found.overall is None


def test_what_it_would_take_is_enough() -> None:
    """As many examples as it says, made by repeating those that there are, show the difference."""
    first, second = run(0.6, 1), run(0.62, 2)
    found = compared([first], [second]).tasks[0]
    assert found.examples_needed is not None
    assert found.verdict == "no evidence"
    times = math.ceil(found.examples_needed / N)
    rows = np.tile(np.arange(N), times)
    more = compared([{"sst": first["sst"].take(rows)}], [{"sst": second["sst"].take(rows)}]).tasks[0]
    assert more.detectable is not None
    assert more.detectable <= abs(more.difference.value) * 1.01


@pytest.mark.parametrize("runs", [(1, 1), (2, 2), (1, 3)])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("metric", list(METRICS))
def test_a_few_examples_give_a_verdict_and_no_warning(metric: str, n: int, runs: tuple[int, int]) -> None:
    kind = METRICS[metric].kinds[0]
    targets = np.arange(n) % 2 if kind == "classification" else np.arange(n) * 1.0
    sides = [
        [{"t": scored(kind, metric, targets, (targets + side * seed) % 2, n_classes=2)} for seed in range(count)]
        for side, count in enumerate(runs)
    ]
    found = compared(sides[0], sides[1])
    assert found.tasks[0].verdict == "no evidence"
    assert found.tasks[0].difference.low is None
    assert "too little" in str(found.tasks[0].difference.reason)
    json.dumps(found.as_dict())


@pytest.mark.parametrize("metric", list(METRICS))
@pytest.mark.parametrize("runs", [1, 2])
def test_constant_columns_give_a_verdict_and_no_warning(metric: str, runs: int) -> None:
    kind = METRICS[metric].kinds[0]
    generator = np.random.default_rng(0)
    varied = generator.integers(2, size=80) if kind == "classification" else generator.random(80) * 5
    flat = np.ones_like(varied)
    for targets, first, second in (
        (varied, flat, flat),
        (varied, flat, varied),
        (flat, varied, flat),
        (flat, flat, flat),
    ):
        sides = [[{"t": scored(kind, metric, targets, each, n_classes=2)}] * runs for each in (first, second)]
        found = compared(sides[0], sides[1]).tasks[0]
        assert found.verdict in ("helped", "hurt", "no evidence")
        assert (found.difference.low is None) == (found.difference.reason is not None)


def test_predictions_that_are_no_numbers_cannot_be_compared() -> None:
    first, second = run(0.6, 1), run(0.6, 2)
    second["sts"].values[5] = math.nan
    found = compared([first], [second])
    assert (found.tasks[2].p, found.tasks[2].verdict) == (None, "no evidence")
    assert "finite" in found.tasks[2].sentence
    assert found.overall is None


def test_discordant_examples_are_counted() -> None:
    targets = np.array([0, 1, 2, 3])
    first = scored("classification", "accuracy", targets, np.array([0, 1, 0, 0]))
    second = scored("classification", "accuracy", targets, np.array([0, 0, 2, 3]))
    assert discordant(first, second) == (1, 2)


def test_what_would_be_found_is_found_by_the_corrected_test() -> None:
    """A task beside two others needs a larger difference than alone."""
    first, second = run(0.6, 1), run(0.61, 2)
    together = compared([first], [second]).tasks[0]
    alone = compared([{together.task: first[together.task]}], [{together.task: second[together.task]}]).tasks[0]
    assert together.detectable is not None
    assert alone.detectable is not None
    assert together.detectable / alone.detectable == pytest.approx((2.3940 + 0.8416) / (1.9600 + 0.8416), abs=1e-3)


def test_intervals_of_sides_end_where_scores_do() -> None:
    runs = [run(right, seed) for seed, right in enumerate((0.88, 0.97, 0.99))]
    for side in (compared(runs[:2], runs[1:]), compared(runs, runs[:2])):
        for task in [*side.tasks, side.overall]:
            assert task is not None
            for interval, count in zip((task.baseline, task.other), task.runs, strict=True):
                if count == 2:
                    assert (interval.low, interval.reason) == (
                        None,
                        "2 runs tell too little of what seeds do; 3 are needed",
                    )
                else:
                    assert interval.low is not None
                    assert interval.high is not None
                    assert -1 <= interval.low < interval.value < interval.high <= 1
