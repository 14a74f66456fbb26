"""The temperatures of a run's probabilities: fitted on dev at the end, measured on rows that did not fit them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from manyhead.data.task_data import TaskData
from manyhead.evaluation.errors.calibration import Classes, Floats, Temperature, fit_temperature
from manyhead.evaluation.evaluate import Evaluation
from manyhead.inference.outputs import read_outputs
from manyhead.model import MultiTaskModel
from manyhead.objectives.base import Objective
from manyhead.recipe.schema import Recipe


@dataclass(frozen=True)
class ScoredRows:
    """Dev rows by task, and what the model made of them, its outputs kept."""

    data: Mapping[str, TaskData]
    evaluation: Evaluation


def calibrate(
    model: MultiTaskModel, recipe: Recipe, objectives: Mapping[str, Objective], picking: ScoredRows, scored: ScoredRows
) -> dict[str, Temperature]:
    """Fits the temperature of each task that can have one on the rows that pick checkpoints, and gives it to ``model``.

    Its effect is measured on the ``scored`` ones; without ``select_on``, where these are the same rows, by two folds.
    """
    found: dict[str, Temperature] = {}
    for name, objective in objectives.items():
        if not getattr(objective, "takes_temperature", False) or name not in picking.evaluation.outputs:
            continue
        others = None if recipe.select_on is None else _rows(model, name, objective, scored)
        found[name] = fit_temperature(*_rows(model, name, objective, picking), others)
    model.temperatures = {name: each.temperature for name, each in found.items() if each.temperature is not None}
    return found


def calibrated(model: MultiTaskModel, objectives: Mapping[str, Objective], evaluation: Evaluation) -> Evaluation:
    """``evaluation`` with the predictions that the model makes at its temperatures."""
    outputs = {name: evaluation.outputs[name] for name in model.temperatures if name in evaluation.outputs}
    changed = {name: read_outputs(model, name, objectives[name], each) for name, each in outputs.items()}
    return replace(evaluation, predictions={**evaluation.predictions, **changed})


def saved_calibration(recipe: Recipe, found: Mapping[str, Temperature]) -> dict[str, dict[str, Any]]:
    """What the model's folder keeps."""
    return {
        name: {"temperature": each.temperature, "n": each.n, "fitted_on": _fitted_on(recipe)}
        for name, each in found.items()
        if each.temperature is not None
    }


def told_calibration(recipe: Recipe, found: Mapping[str, Temperature]) -> dict[str, dict[str, Any]]:
    """What summary.json says: temperatures and their effect, or why there is none."""
    told: dict[str, dict[str, Any]] = {}
    for name, each in found.items():
        told[name] = {"temperature": each.temperature, "n": each.n, "fitted_on": _fitted_on(recipe)}
        if each.temperature is None:
            told[name]["reason"] = each.reason
            continue
        told[name]["measured_on"] = each.measured_on
        for key, pair in (("nll", each.nll), ("ece", each.ece)):
            assert pair is not None
            told[name][key] = {"before": pair[0], "after": pair[1]}
    return told


def _fitted_on(recipe: Recipe) -> str:
    return "dev" if recipe.select_on is None else "the dev rows that pick checkpoints"


def _rows(model: MultiTaskModel, name: str, objective: Objective, rows: ScoredRows) -> tuple[Floats, Classes]:
    """Logarithms (E, C) of the probabilities at temperature 1, and the classes (E,)."""
    outputs = torch.from_numpy(rows.evaluation.outputs[name]).double()
    threshold, targets = model.threshold(name), rows.data[name].targets
    logs = objective.log_probabilities(outputs if threshold is None else outputs - threshold.cpu())
    assert logs is not None
    assert targets is not None
    return logs.numpy(), targets.astype(np.int64)
