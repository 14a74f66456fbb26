"""A run's probabilities at the temperature that dev gives: in its files, its model and its summary the same."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyhead.build import train
from manyhead.cli.evaluate import open_examples, score_examples
from manyhead.cli.stored import find_model
from manyhead.data.selection import halves_of
from manyhead.evaluation.errors.calibration import calibration_of
from manyhead.evidence.predictions import read_predictions
from manyhead.faults import injected
from manyhead.inference.predictor import Model
from manyhead.inference.temperatures import CALIBRATION
from manyhead.inference.writing import shortest
from manyhead.recipe.load import load_recipe
from tiny import tiny_encoder, tiny_recipe


class Cut(BaseException):
    """Ends a run where it stands."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("calibrating") / "encoder")


def recipe_of(encoder: Path, **top: Any) -> dict[str, Any]:
    recipe = {**tiny_recipe(encoder, epochs=1), **top}
    for task in recipe["tasks"].values():
        task["limit"] = {"train": 24, "dev": 70}
    return recipe


@pytest.fixture(scope="module")
def run(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(load_recipe(recipe_of(encoder)), out=tmp_path_factory.mktemp("calibrated") / "run").path


def summary_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def test_files_model_and_summary_agree(run: Path) -> None:
    model = Model.load(run)
    told = summary_of(run)["calibration"]
    assert told.keys() == {"reviews", "questions"}
    saved = json.loads((run / "model" / CALIBRATION).read_text())["tasks"]
    assert {name: each["temperature"] for name, each in saved.items()} == model.network.temperatures
    assert model.network.temperatures
    for name, each in told.items():
        assert each["n"] == 70
        assert each["fitted_on"] == "dev"
        assert each["temperature"] == model.network.temperatures.get(name)
        assert ("reason" in each) == (each["temperature"] is None)
    for name, task in model.tasks.items():
        scored = read_predictions(run, name, task)
        with (run / "predictions" / f"{name}.dev.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row, found in zip(rows, model.predict(name, list(scored.texts)), strict=True):
            assert row["prediction"] == (str(shortest(found.score)) if found.score is not None else str(found.value))
            for label, probability in (found.probabilities or {}).items():
                assert row[f"probability_{label}"] == str(shortest(probability))
        if scored.probabilities is not None:
            np.testing.assert_array_equal(scored.values, scored.probabilities.argmax(1))


def test_before_is_what_an_uncalibrated_run_has(run: Path, encoder: Path, tmp_path: Path) -> None:
    plain = train(load_recipe(recipe_of(encoder, calibrate=False)), out=tmp_path / "run").path
    assert summary_of(plain)["calibration"] == {}
    assert not (plain / "model" / CALIBRATION).exists()
    weights = [(path / "model" / "weights.safetensors").read_bytes() for path in (plain, run)]
    assert weights[0] == weights[1]
    assert summary_of(plain)["dev"] == summary_of(run)["dev"]
    for name in ("reviews", "questions"):
        before, after = (read_predictions(path, name, Model.load(path).tasks[name]) for path in (plain, run))
        told = summary_of(run)["calibration"][name]
        np.testing.assert_array_equal(before.values, after.values)
        if told["temperature"] is not None:
            found = calibration_of(before)
            assert told["nll"]["before"] == pytest.approx(found.nll, abs=1e-6)
            assert told["ece"]["before"] == pytest.approx(found.ece, abs=1e-6)
            assert calibration_of(after).nll <= found.nll + 1e-6


def test_evaluate_tells_the_scores_of_the_summary(run: Path) -> None:
    stored = find_model(str(run))
    found = score_examples(stored, open_examples(stored, [], "dev", None), note=lambda _: None)
    assert found.as_dict() == summary_of(run)["dev"]


@pytest.mark.parametrize(
    ("place", "select_on"),
    [("finish: begins", None), ("finish: the model is written", None), ("finish: the model is written", {"dev": 0.8})],
)
def test_a_run_cut_at_its_end_ends_with_the_same_bits(
    run: Path, encoder: Path, tmp_path: Path, place: str, select_on: Any
) -> None:
    recipe = recipe_of(encoder, select_on=select_on)
    whole = run if select_on is None else train(load_recipe(recipe), out=tmp_path / "whole").path

    def cut(at: str, value: Any) -> Any:
        if at == place:
            raise Cut
        return value

    with injected(cut), pytest.raises(Cut):
        train(load_recipe(recipe), out=tmp_path / "run")
    resumed = train(load_recipe(recipe), out=tmp_path / "run", resume=True).path
    names = ["maps.json", *(f"predictions/{path.name}" for path in (whole / "predictions").iterdir())]
    names += [f"model/{name}" for name in ("weights.safetensors", "manifest.json")]
    for name in names:
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name
    assert summary_of(resumed)["calibration"] == summary_of(whole)["calibration"]
    if select_on is not None:
        told = summary_of(whole)["calibration"]["reviews"]
        halves = halves_of(load_recipe(recipe).recipe, "reviews", 70)
        assert told["n"] == len(halves.picking) == 56
        assert told["fitted_on"] == "the dev rows that pick checkpoints"
        assert told["measured_on"] == "rows it was not fitted on"
        scored = read_predictions(whole, "reviews", Model.load(whole).tasks["reviews"])
        assert scored.n == len(halves.scored)
        assert calibration_of(scored).nll == pytest.approx(told["nll"]["after"], abs=1e-6)


def test_few_rows_get_no_temperature_and_the_reason_is_told(encoder: Path, tmp_path: Path) -> None:
    run = train(load_recipe(tiny_recipe(encoder, epochs=1)), out=tmp_path / "run").path
    assert summary_of(run)["calibration"]["reviews"] == {
        "temperature": None,
        "n": 12,
        "fitted_on": "dev",
        "reason": "12 rows; a temperature needs 50",
    }
    assert not (run / "model" / CALIBRATION).exists()


def test_a_run_has_maps_of_its_dev_rows(run: Path) -> None:
    maps = json.loads((run / "maps.json").read_text())["tasks"]
    assert maps.keys() == {"reviews", "questions", "sentences"}
    for name, found in maps.items():
        scored = read_predictions(run, name, Model.load(run).tasks[name])
        points = found["n"] * (2 if name == "sentences" else 1)
        assert (found["n"], found["of"]) == (70, 70)
        assert found["planes"].keys() == {"cls", "mean", "attention"}
        for plane in found["planes"].values():
            assert len(plane["x"]) == len(plane["y"]) == len(found["rows"]) == points
            assert 0 < plane["variance"][1] <= plane["variance"][0] <= 1
        assert [scored.ids[row] for row in found["rows"]] == found["ids"]
