"""A whole verdict on the tiny encoder: what it leaves, what it does not do twice, what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyhead.cli.verdict import factors_of
from manyhead.errors import UsageError
from manyhead.studies.verdict import run_verdict
from manyhead.studies.verdict.document import markdown_text

Write = Callable[..., Path]
FEW = {"tasks.sentences.limit": {"train": 16, "dev": 50}, "tasks.questions.limit": {"train": 16, "dev": 50}}


def without_time(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_time(item) for key, item in value.items() if key != "time"}
    return [without_time(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_a_verdict_is_reached_once_and_says_everything(write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe("both", {"tasks": ["questions", "sentences"], "epochs": 1, "batch_size": 8})
    told: list[str] = []
    options: dict[str, Any] = {"seeds": 2, "factors": (1.0, 3.0), "overrides": FEW, "out": tmp_path / "v", "jobs": 2}
    result = run_verdict(recipe, **options, tell=told.append, command=["manyhead", "verdict", "both.yaml"])
    document = result.document
    assert result.exit_code == 0
    assert document["tasks"] == ["questions", "sentences"]
    assert document["seeds"] == {"asked": 2, "compared": 2}
    assert [each["task"] for each in document["comparison"]["tasks"]] == ["questions", "sentences"]
    assert document["comparison"]["about"] == "recipes"
    assert document["tuning"].keys() == {"shared", "questions", "sentences"}
    for tuned in document["tuning"].values():
        scores = tuned["scores"]
        assert scores.keys() == {"1", "3"}
        assert scores[f"{tuned['factor']:g}"] == max(scores.values())
    alone, shared = document["cost"]["alone"], document["cost"]["shared"]
    assert (alone["models"], shared["models"]) == (2, 1)
    assert alone["examples"] == shared["examples"] == {"questions": 16, "sentences": 16}
    assert alone["parameters"] > shared["parameters"]
    assert json.loads((tmp_path / "v" / "verdict.json").read_text()) == json.loads(json.dumps(document))
    page = (tmp_path / "v" / "verdict.md").read_text()
    assert page == markdown_text(document)
    assert document["sentence"] in page
    for each in document["comparison"]["tasks"]:
        assert each["sentence"] in page

    # The scores are those of the runs' own summaries, on rows that picked nothing.
    for each in document["comparison"]["tasks"]:
        task = each["task"]
        for side, name in (("baseline", task), ("other", "shared")):
            runs = [tmp_path / "v" / "runs" / run for run in document["runs"][name]]
            summaries = [json.loads((run / "summary.json").read_text()) for run in runs]
            scores = [summary["dev"]["tasks"][task][each["metric"]] for summary in summaries]
            assert each[side]["value"] == pytest.approx(np.mean(scores), abs=1e-6)
            assert {summary["dev"]["tasks"][task]["n"] for summary in summaries} == {25}

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "v" / "runs").glob("*/summary.json")}
    again = run_verdict(recipe, **options)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert without_time(again.document) == without_time({**document, "command": []})


def test_a_run_that_diverges_leaves_no_verdict_and_says_so(write_recipe: Write, tmp_path: Path) -> None:
    stage = {"tasks": ["questions", "sentences"], "epochs": 1, "optimizer": {"kind": "adamw", "lr": 1e30}}
    recipe = write_recipe("bad", stage | {"clip_norm": None})
    result = run_verdict(recipe, seeds=1, factors=(1.0,), overrides=FEW, out=tmp_path / "v")
    assert result.exit_code == 3
    assert result.document["comparison"] is None
    assert result.document["sentence"].startswith("No verdict")
    assert {failure["status"] for failure in result.document["failures"]} == {"diverged"}
    assert "diverged" in (tmp_path / "v" / "verdict.md").read_text()


@pytest.mark.parametrize("text", ["", "a", "1,1", "0", "-1,2", "inf", "nan", "1,,2"])
def test_factors_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--tune"):
        factors_of(text)


def test_factors_are_read() -> None:
    assert factors_of("0.5,1, 2") == [0.5, 1.0, 2.0]
