"""Thresholds are those of all of a file, whatever its order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import manyhead.training.thresholds
from manyhead.build import new_model, plan_stages, read_parts
from manyhead.inference.outputs import raw_outputs
from manyhead.objectives.threshold import fit_threshold
from manyhead.recipe.load import load_recipe
from manyhead.training.observer import Observer
from manyhead.training.thresholds import fit_thresholds
from tiny import tiny_encoder, tiny_recipe


@pytest.mark.parametrize("most", [4, 7, 2000])
def test_rows_sorted_by_class_are_all_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    recipe = tiny_recipe(tiny_encoder(tmp_path / "encoder"))
    recipe["tasks"]["questions"]["loss"] = {"kind": "bce", "threshold": "fitted"}
    parts = read_parts(load_recipe(recipe), Observer())
    model = new_model(parts)
    plan = plan_stages(parts, model)[0]
    data = plan.learner.lesson.data["questions"]
    assert data.targets is not None
    order = np.argsort(data.targets, kind="stable")
    targets = data.targets[order]
    ordered = replace(data, tokens=data.tokens.take(order), targets=targets)
    outputs = raw_outputs(model, "questions", ordered.tokens, 1)[:, 0]
    monkeypatch.setattr(manyhead.training.thresholds, "FITTED_ROWS", most)
    fit_thresholds(model, {"questions": (ordered, plan.rows["questions"])}, segment_ids=True)
    cut = float(model.threshold("questions") or 0.0)
    chosen = plan.rows["questions"][:: max(1, -(-len(order) // most))]
    assert len(chosen) <= most
    assert len(set(targets[chosen].tolist())) == 2
    expected = fit_threshold(torch.from_numpy(outputs[chosen]), torch.from_numpy(targets[chosen]))
    assert cut == pytest.approx(expected, abs=1e-5)


def test_a_stage_of_another_task_fits_the_threshold_anew(tmp_path: Path) -> None:
    """The encoder moves below heads that the stage leaves alone."""
    recipe = tiny_recipe(tiny_encoder(tmp_path / "encoder"), tasks=["reviews"])
    recipe["tasks"]["questions"]["loss"] = {"kind": "bce", "threshold": "fitted"}
    parts = read_parts(load_recipe(recipe), Observer())
    (plan,) = plan_stages(parts, new_model(parts))
    data, rows = plan.fitted["questions"]
    assert plan.rows.keys() == {"reviews"}
    assert len(rows) == data.n_examples
