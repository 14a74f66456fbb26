"""Proposals and pruning as functions of the trials so far, and reading a run's scores while it writes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from manyhead.recipe.load import load_recipe
from manyhead.recipe.schema import Recipe, Search, SearchRange
from manyhead.studies.proposals import Evaluations, Trial, distributions, is_hopeless, propose, score_of
from tiny import tiny_recipe

SEARCH = Search(
    keys={
        "lr": SearchRange(low=1e-6, high=1e-2, log=True),
        "epochs": SearchRange(low=1, high=5, integer=True),
        "balancing": ["sum", {"kind": "weighted", "weights": {"a": 2.0}}, None],
    }
)
SPACES = distributions(SEARCH)


def ended(number: int, score: float | None, *scores: float, status: str = "finished") -> Trial:
    values = {"lr": 1e-4, "epochs": 2, "balancing": "sum"}
    return Trial(number, values, status, score, list(scores))


def recipe_of(**changes: Any) -> Recipe:
    return load_recipe(tiny_recipe(Path("encoder"), **changes)).recipe


def test_proposals_lie_where_they_may_and_follow_from_seed_number_and_history() -> None:
    history = [ended(number, 0.1 * number) for number in range(12)]
    seen: set[str] = set()
    for number in range(30):
        values = propose(history, SPACES, seed=3, number=number)
        assert 1e-6 <= values["lr"] <= 1e-2
        assert values["epochs"] in range(1, 6)
        assert json.loads(values["balancing"]) in SEARCH.keys["balancing"]
        assert values == propose(history, SPACES, seed=3, number=number)
        seen.add(json.dumps(values))
    assert len(seen) == 30
    assert propose(history, SPACES, seed=4, number=0) != propose(history, SPACES, seed=3, number=0)


def test_later_proposals_learn_from_the_trials() -> None:
    """Where low rates always score best, they are what is tried."""
    history: list[Trial] = []
    for number in range(40):
        values = propose(history, SPACES, seed=0, number=number)
        history.append(
            Trial(number, {**values, "balancing": json.loads(values["balancing"])}, "finished", -values["lr"])
        )
    late = [trial.values["lr"] for trial in history[25:]]
    assert sorted(late)[len(late) // 2] < 1e-4


@pytest.mark.parametrize("status", ["failed", "diverged", "pruned", "running"])
def test_trials_without_a_score_are_no_obstacle(status: str) -> None:
    history = [ended(0, None, 0.5, status=status), ended(1, 0.4), ended(2, None)]
    assert propose(history, SPACES, seed=0, number=3).keys() == SEARCH.keys.keys()


def test_only_what_is_below_the_median_is_given_up() -> None:
    history = [ended(number, score, score, score) for number, score in enumerate((0.2, 0.5, 0.6))]

    def hopeless(*scores: float, planned: int = 8) -> bool:
        return is_hopeless(history, scores, SPACES, planned=planned)

    assert hopeless(0.4)
    assert not hopeless(0.55)
    assert hopeless(0.1, 0.45)
    assert not hopeless(0.7, 0.1)  # its best counts
    assert not hopeless(0.1, 0.1, 0.1)  # nobody came this far
    assert not hopeless(0.4, planned=16)  # four have to finish first


def test_scores_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = Evaluations(path, recipe_of())
    assert log.read() == []

    def record(accuracy: float) -> str:
        tasks = {"reviews": {"accuracy": accuracy}, "questions": {"accuracy": accuracy}, "sentences": {"pearson": 1.0}}
        return json.dumps({"kind": "eval", "tasks": tasks}) + "\n"

    first, step = record(0.25), json.dumps({"kind": "step", "text": '"eval"'}) + "\n"
    path.write_text(first + step + record(0.5)[:-9])
    assert log.read() == [0.5]
    path.write_text(first + step + record(0.5))
    assert log.read() == log.read() == [0.5, pytest.approx(2 / 3)]
    path.write_text(first)  # a run that goes on cuts its records back
    assert log.read() == [0.5]
    path.write_text(first + record(1.0))
    assert log.read() == [0.5, 1.0]
    path.write_text(first + "{}\n")
    assert log.read() == [0.5]
    path.write_text(first + record(1.0))  # cut back and longer than before at once
    assert log.read() == [0.5, 1.0]


def test_what_a_search_maximises() -> None:
    tasks = {"reviews": {"accuracy": 0.5}, "questions": {"accuracy": 0.7}, "sentences": {"pearson": 0.0, "mse": 3.0}}
    assert score_of({"tasks": tasks}, recipe_of()) == pytest.approx((0.5 + 0.7 + 0.5) / 3)
    assert score_of({"tasks": tasks}, recipe_of(tasks=["reviews"])) == 0.5
    assert score_of({"tasks": tasks}, recipe_of(select_by="sentences.mse")) == -3.0
    assert score_of({"tasks": {}}, recipe_of(select_by="sentences.mse")) is None
    assert score_of({}, recipe_of()) is None
