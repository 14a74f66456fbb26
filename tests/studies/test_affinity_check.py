"""Gains read from runs, and predictions beside them: planted ones are told from chance, chance is not."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata

from manyhead.build import train
from manyhead.errors import UsageError
from manyhead.files import read_json
from manyhead.recipe.load import load_recipe
from manyhead.studies.affinity.affinity import Affinity, affinity_of
from manyhead.studies.affinity.check import Case, check_prediction, rank_correlation
from manyhead.studies.affinity.gains import Gain, Gains, measure_gains
from manyhead.studies.affinity.gradients import Gradients, Sizes
from tiny import tiny_recipe

TASKS = ("a", "b", "c", "d")
COSINES = np.array([[1, 0.7, 0.2, -0.5], [0.7, 1, 0.1, -0.3], [0.2, 0.1, 1, -0.1], [-0.5, -0.3, -0.1, 1]])


def affinity_with(cosines: NDArray[Any], batches: int = 24, noise: float = 0.05) -> Affinity:
    """The affinity of tasks whose true gradients have these cosines."""
    truths = np.linalg.cholesky(cosines)
    owners = np.repeat(np.arange(len(cosines)), batches)
    gradients = truths[owners] + noise * np.random.default_rng(0).standard_normal((len(owners), len(cosines)))
    sizes: dict[str, int] = dict.fromkeys(TASKS, 8)
    losses = np.ones(len(owners))
    given = Gradients(TASKS, ("all",), owners, losses, (gradients @ gradients.T)[None], 8, sizes)
    return affinity_of("planted", Sizes(), given, resamples=400)


def gains_of(values: NDArray[Any], noise: float = 0.002, resamples: int = 300) -> Gains:
    """For each task and set of partners the mean of what each of them gives, of ``values`` (K, K)."""
    generator = np.random.default_rng(1)
    gains: list[Gain] = []
    for task, name in enumerate(TASKS):
        others = [other for other in range(len(TASKS)) if other != task]
        for partners in itertools.chain(*(itertools.combinations(others, size) for size in (1, 2, 3))):
            gain = float(np.mean([values[task, other] for other in partners]))
            samples = gain + noise * generator.standard_normal(resamples)
            gains.append(Gain(name, tuple(TASKS[each] for each in partners), "accuracy", 0.5, 0.5 + gain, 2, samples))
    return Gains(TASKS, gains, ())


def predicted_of(case: Case) -> float:
    return case.predicted


def gain_of(case: Case) -> float:
    return case.gain.value


def test_gains_that_follow_affinity_are_told() -> None:
    found = check_prediction(affinity_with(COSINES), gains_of(0.05 * COSINES))
    assert len(found.cases) == 28
    assert found.correlation > 0.95
    assert found.interval[0] > 0.8
    assert found.p_value == pytest.approx(1 / 24)
    assert found.is_evidence
    assert set(found.within) == set(TASKS)
    assert found.decided_same == found.decided > 20
    ranks = [rankdata([each(case) for case in found.cases]) for each in (predicted_of, gain_of)]
    assert found.correlation == pytest.approx(np.corrcoef(ranks)[0, 1])
    assert found.as_dict()["text"][0].startswith("The prediction is worth something here")


def test_gains_against_affinity_mislead() -> None:
    found = check_prediction(affinity_with(COSINES), gains_of(-0.05 * COSINES))
    assert found.correlation < -0.95
    assert not found.is_evidence
    assert found.decided_same == 0
    assert found.as_dict()["text"][0].startswith("The prediction misleads here")


def test_gains_of_chance_are_rarely_told() -> None:
    """With 4 tasks, one in 24 orders of them fits best: that is the test's rate of false alarms."""
    affinity = affinity_with(COSINES)
    called = 0
    for seed in range(60):
        noise = np.random.default_rng(seed).standard_normal((4, 4))
        found = check_prediction(affinity, gains_of(0.01 * (noise + noise.T), resamples=2))
        called += found.p_value <= 0.05
        assert found.p_value >= 1 / 24
    assert called <= 8


def test_correlations_that_cannot_be_told() -> None:
    assert np.isnan(rank_correlation(np.array([1.0, 2.0]), np.array([1.0, 2.0])))
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5.0)))
    assert rank_correlation(np.array([1.0, np.nan, 2.0, 3.0]), np.array([1.0, 9.0, 2.0, 3.0])) == pytest.approx(1)


def test_runs_of_other_tasks_are_refused() -> None:
    gains = gains_of(COSINES)
    with pytest.raises(UsageError, match=r"the runs trained e, and affinity was measured of a, b, c, d"):
        check_prediction(
            affinity_with(COSINES), Gains((*TASKS, "e"), [Gain("e", ("a",), "mse", 1, 1, 1, np.ones(5))], ())
        )
    assert gains.gains[0].interval[0] < gains.gains[0].value < gains.gains[0].interval[1]


@pytest.fixture(scope="module")
def study(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two tasks, alone and together."""
    folder = tmp_path_factory.mktemp("subsets")
    for tasks in (["reviews"], ["sentences"], ["reviews", "sentences"]):
        subset(encoder, folder / "runs" / "-".join(tasks), tasks)
    return folder


def subset(encoder: Path, path: Path, trained: Sequence[str], **keys: Any) -> None:
    recipe = tiny_recipe(encoder, tasks=list(trained), epochs=1) | keys
    path.parent.mkdir(parents=True, exist_ok=True)
    train(load_recipe(recipe), out=path)


def test_gains_are_differences_of_dev_scores(study: Path) -> None:
    found = measure_gains(study, resamples=100)
    assert found.tasks == ("reviews", "sentences")
    assert [(gain.task, gain.partners, gain.seeds) for gain in found.gains] == [
        ("reviews", ("sentences",), 1),
        ("sentences", ("reviews",), 1),
    ]
    assert list(found.differences) == []
    for gain in found.gains:
        runs = (study / "runs" / gain.task, study / "runs" / "reviews-sentences")
        alone, together = (read_json(run / "summary.json")["dev"]["tasks"][gain.task][gain.metric] for run in runs)
        assert (gain.alone, gain.together) == (pytest.approx(alone, abs=1e-6), pytest.approx(together, abs=1e-6))
        assert gain.value == pytest.approx(together - alone, abs=1e-6)
        assert gain.interval[0] <= gain.value <= gain.interval[1]


def test_runs_that_cannot_be_compared_are_refused(study: Path, encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no finished run"):
        measure_gains(tmp_path)
    both, alone = study / "runs" / "reviews-sentences", study / "runs" / "reviews"
    (tmp_path / "both").symlink_to(both)
    with pytest.raises(UsageError, match="no task was trained both alone and with others"):
        measure_gains(tmp_path)
    (tmp_path / "alone").symlink_to(alone)
    (tmp_path / "again").symlink_to(alone)
    with pytest.raises(UsageError, match="train the same tasks with the same seed"):
        measure_gains(tmp_path)
    (tmp_path / "again").unlink()
    (tmp_path / "alone").unlink()
    other = tiny_recipe(encoder)["tasks"]
    other["reviews"]["limit"] = {"train": 24, "dev": 10}
    subset(encoder, tmp_path / "other", ["reviews"], tasks=other)
    with pytest.raises(UsageError, match="scored other dev rows of reviews"):
        measure_gains(tmp_path)


def test_runs_that_differ_in_more_are_said_to(study: Path, encoder: Path, tmp_path: Path) -> None:
    for name in ("reviews", "sentences"):
        (tmp_path / name).symlink_to(study / "runs" / name)
    recipe = tiny_recipe(encoder)
    recipe["stages"][0] |= {"tasks": ["reviews", "sentences"], "epochs": 1, "batch_size": 6}
    subset(encoder, tmp_path / "both", [], stages=recipe["stages"])
    assert list(measure_gains(tmp_path, resamples=20).differences) == ["stages.0.batch_size"]


def test_runs_whose_recipes_hold_other_tasks_are_read_together(study: Path, encoder: Path, tmp_path: Path) -> None:
    """A recipe of one task alone, the usual way to have its score alone, hides no partner."""
    for name in ("reviews", "sentences"):
        recipe = tiny_recipe(encoder, tasks=[name], epochs=1)
        only = {name: recipe["tasks"][name]}
        subset(encoder, tmp_path / name, [name], tasks=only)
    (tmp_path / "together").symlink_to(study / "runs" / "reviews-sentences")
    found = measure_gains(tmp_path, resamples=20)
    assert [(gain.task, gain.partners) for gain in found.gains] == [
        ("reviews", ("sentences",)),
        ("sentences", ("reviews",)),
    ]
    assert list(found.differences) == []
