"""The table, from what finished runs say: means, deviations, differences, joined rows, and how each file shows them."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manyhead.studies.folder import Outcome, StudyFolder, open_study
from manyhead.studies.load import load_study
from manyhead.studies.plan import plan_study
from manyhead.studies.planner import Options, Planner
from manyhead.studies.runs import Plan, PlannedRun
from manyhead.studies.schema import BUDGETS
from manyhead.studies.table import Header, csv_text, markdown_text, shown_rows, study_document

Write = Callable[..., Path]

STUDY = """\
study: 1
name: n
title: a | b
baseline: a
rows:
  - {recipe: a.yaml, published: {reviews: .5, sentences.mse: 2}}
  - b.yaml
  - {name: joined, row: {reviews: a.yaml, questions: b.yaml, sentences: b.yaml}, published: {overall: .9}}
  - {name: part, row: {reviews: a.yaml}}
"""


def finish(folder: StudyFolder, run: PlannedRun, reviews: float, questions: float, pearson: float) -> None:
    """Writes what a run leaves behind."""
    path = folder.run_path(run)
    path.mkdir()
    tasks = {
        "reviews": {"accuracy": reviews, "n": 12},
        "questions": {"accuracy": questions, "n": 12},
        "sentences": {"pearson": pearson, "mse": 1.5, "n": 12},
    }
    mapped, raw = (reviews + questions + (pearson + 1) / 2) / 3, (reviews + questions + pearson) / 3
    dev = {"tasks": tasks, "overall": mapped, "overall_raw": raw}
    hardware = {"device_name": "chip", "device": "cpu", "precision": "fp32", "threads": 2}
    state = {
        "status": "finished",
        "versions": {"manyhead": "1"},
        "hardware": hardware,
        "data": {f"{task}.{split}": {"rows": 12} for task in tasks for split in ("train", "dev")},
    }
    summary = {"dev": dev, "examples": {"reviews": 5, "questions": 7}, "steps": 3, "best": {}, "seconds": 90.0}
    (path / "state.json").write_text(json.dumps(state))
    (path / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def planned(write_recipe: Write, write_study: Write, tmp_path: Path) -> tuple[Header, Plan, StudyFolder]:
    write_recipe("a")
    write_recipe("b", {"epochs": 1}, {"epochs": 2})
    loaded = load_study(write_study(STUDY))
    plan = plan_study(Planner(Options(BUDGETS["small"], 2)), loaded)
    header = Header(loaded.study, "small", BUDGETS["small"], 2, ("manyhead", "study", "n"))
    return header, plan, open_study(tmp_path / "out", "n", "small")


def test_means_deviations_and_differences(planned: tuple[Header, Plan, StudyFolder]) -> None:
    header, plan, folder = planned
    a1, b1, a2, b2 = plan.runs
    for run, scores in zip(
        (a1, a2, b1, b2), ((0.4, 0.6, 0.2), (0.6, 0.8, 0.4), (0.5, 0.5, 0.5), (0.9, 0.5, 0.1)), strict=True
    ):
        finish(folder, run, *scores)
    found = study_document(header, plan, folder)
    assert found["scores"] == ["reviews", "questions", "sentences", "sentences.mse", "overall", "overall_raw"]
    rows = {row["name"]: row["scores"] for row in found["rows"]}
    assert rows["a"]["reviews"] == {
        "mean": pytest.approx(0.5),
        "deviation": pytest.approx(0.1414213562),
        "published": 0.5,
        "difference": 0.0,
        "seeds": [0.4, 0.6],
    }
    assert rows["b"]["reviews"]["difference"] == pytest.approx(0.2)
    assert rows["b"]["overall"]["mean"] == pytest.approx(((0.5 + 0.5 + 0.75) / 3 + (0.9 + 0.5 + 0.55) / 3) / 2)
    assert (rows["a"]["sentences.mse"]["mean"], rows["a"]["sentences.mse"]["published"]) == (1.5, 2.0)
    joined = rows["joined"]
    assert joined["reviews"]["seeds"] == [0.4, 0.6]
    assert joined["sentences"]["seeds"] == [0.5, 0.1]
    assert joined["overall"]["seeds"] == [pytest.approx((0.4 + 0.5 + 0.75) / 3), pytest.approx((0.6 + 0.5 + 0.55) / 3)]
    assert joined["overall_raw"]["seeds"][1] == pytest.approx((0.6 + 0.5 + 0.1) / 3)
    assert rows["part"]["reviews"]["mean"] == pytest.approx(0.5)
    assert rows["part"]["overall"] == {
        "mean": None,
        "deviation": None,
        "published": None,
        "difference": None,
        "seeds": [None] * 2,
    }
    assert found["dev_rows"] == {"reviews": 12, "questions": 12, "sentences": 12}
    assert {row["name"]: row["epochs"] for row in found["rows"]} == {
        "a": "2",
        "b": "1+2",
        "joined": "2, 1+2",
        "part": "2",
    }
    assert [row["time"]["seconds"] for row in found["rows"]] == [90.0, 90.0, 270.0, 90.0]
    assert found["time"]["seconds"] == 360.0  # runs that rows share count once
    assert found["failures"] == []


def test_runs_that_failed_or_wait(planned: tuple[Header, Plan, StudyFolder]) -> None:
    header, plan, folder = planned
    a1, b1, _, b2 = plan.runs
    finish(folder, a1, 0.4, 0.6, 0.2)
    finish(folder, b2, 0.5, 0.5, 0.5)
    folder.record(b1, Outcome("diverged", "too fast"))
    found = study_document(header, plan, folder)
    a, b, joined, _ = found["rows"]
    assert (a["status"], b["status"], joined["status"]) == (
        "pending, 1 of 2 seeds done",
        "diverged, 1 of 2 seeds done",
        "diverged",
    )
    assert b["scores"]["reviews"]["seeds"] == [None, 0.5]
    assert b["scores"]["reviews"]["difference"] is None  # no seed that both have
    assert b["scores"]["reviews"]["deviation"] is None
    assert {(run["run"], run["reason"]) for run in found["failures"]} == {(f"runs/{b1.name}", "too fast")}
    assert "too fast" in markdown_text(found)
    assert "b (diverged, 1 of 2 seeds done)" in [row[0] for row in shown_rows(found)[1]]


def test_markdown_and_csv_show_the_same(planned: tuple[Header, Plan, StudyFolder]) -> None:
    header, plan, folder = planned
    for number, run in enumerate(plan.runs):
        finish(folder, run, 0.1 * number, 0.5, -0.25)
    found = study_document(header, plan, folder)
    text = markdown_text(found)
    lines = text.splitlines()
    assert lines[0] == "# n: a | b"
    for said in (
        "- command: `manyhead study n`",
        "- seeds: 2",
        f"at most {BUDGETS['small'].examples:,} training examples a run",
        "learning rates times 10",
        "- dev rows: reviews 12, questions 12, sentences 12",
        "- hardware: chip, cpu, fp32, 2 threads",
        "- versions: manyhead 1",
        "- in brackets: difference to a",
        "±: standard deviation over seeds",
    ):
        assert said in text
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert table[2].startswith("| a | 0.100 ±0.141 | 0.500 | 0.500 ±0.000 | -0.250 ±0.000 |")
    assert "0.200 ±0.141 (+0.100)" in table[3]
    rows = list(csv.DictReader(io.StringIO(csv_text(found))))
    assert [row["row"] for row in rows] == ["a", "b", "joined", "part"]
    assert float(rows[1]["reviews"]) == pytest.approx(0.2)
    assert float(rows[1]["reviews_difference"]) == pytest.approx(0.1)
    assert (rows[0]["reviews_published"], rows[1]["reviews_published"]) == ("0.5", "")
    assert (rows[0]["examples"], rows[0]["seconds"]) == ("12", "90.0")


def test_columns_can_be_chosen(planned: tuple[Header, Plan, StudyFolder]) -> None:
    header, plan, folder = planned
    study = header.study.model_copy(update={"scores": ["sentences.mse", "overall"]})
    found: Any = study_document(Header(study, "small", header.budget, 2), plan, folder)
    assert found["scores"] == ["sentences.mse", "overall"]
    assert list(found["rows"][0]["scores"]) == ["sentences.mse", "overall"]
