"""A temperature kept beside the weights: applied wherever a model predicts, changing no class; refused when damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manyhead.build.starting import take_weights
from manyhead.encoder.tokenizer import load_tokenizer
from manyhead.errors import CheckpointError
from manyhead.files import write_json, write_manifest
from manyhead.inference.model_folder import StoredModel, read_model, write_model
from manyhead.inference.outputs import read_outputs
from manyhead.inference.predictor import Model
from manyhead.inference.temperatures import CALIBRATION
from manyhead.model import build_objective
from manyhead.recipe.load import recipe_yaml
from mixed import perturb, tiny_loaded, tiny_model
from tiny import sample_texts, tiny_encoder

TEXTS = sample_texts()[:40]
PAIRS = list(zip(TEXTS[:20], TEXTS[20:], strict=True))
SAVED = {"reviews": {"temperature": 0.3, "n": 60, "fitted_on": "dev"}, "questions": {"temperature": 2.5, "n": 60}}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("temperatures") / "encoder")


@pytest.fixture
def folder(encoder: Path, tmp_path: Path) -> Path:
    model = tiny_model(encoder)
    perturb(model, spread=0.3)
    text = recipe_yaml(tiny_loaded(encoder).recipe)
    write_model(tmp_path / "plain", model, text, encoder)
    write_model(tmp_path / "model", model, text, encoder, SAVED)
    return tmp_path / "model"


def test_probabilities_are_tempered_and_classes_stay(folder: Path) -> None:
    plain, model = Model.load(folder.parent / "plain"), Model.load(folder)
    assert model.network.temperatures == {"reviews": 0.3, "questions": 2.5}
    assert plain.network.temperatures == {}
    assert not (folder.parent / "plain" / CALIBRATION).exists()
    for task, rows in (("reviews", [(text,) for text in TEXTS]), ("questions", PAIRS)):
        before, after = (each.predict_arrays(task, rows)[0] for each in (plain, model))
        assert before.probabilities is not None
        assert after.probabilities is not None
        powers = before.probabilities.astype(np.float64) ** (1 / SAVED[task]["temperature"])
        np.testing.assert_allclose(after.probabilities, powers / powers.sum(1, keepdims=True), rtol=1e-4, atol=1e-7)
        np.testing.assert_array_equal(before.values, after.values)
    np.testing.assert_array_equal(
        plain.predict_arrays("sentences", PAIRS)[0].values, model.predict_arrays("sentences", PAIRS)[0].values
    )
    together = model.predict_all(PAIRS)["questions"]
    alone = model.predict("questions", PAIRS)
    for one, other in zip(together, alone, strict=True):
        assert one.label == other.label
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_a_model_to_start_from_gives_its_weights_not_its_temperature(folder: Path, encoder: Path) -> None:
    stored = read_model(folder)
    model = tiny_model(encoder)
    take_weights(model, tiny_loaded(encoder).recipe, stored)
    assert stored.model.temperatures
    assert model.temperatures == {}


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        "null",
        "{",
        '{"tasks": {"other": {"temperature": 1.0}}}',
        '{"tasks": {"reviews": {"temperature": 0.0}}}',
        '{"tasks": {"reviews": {"temperature": -1.5}}}',
        '{"tasks": {"reviews": {"temperature": NaN}}}',
        '{"tasks": {"reviews": {"temperature": Infinity}}}',
        '{"tasks": {"reviews": {"temperature": true}}}',
        '{"tasks": {"reviews": {"temperature": "1.0"}}}',
        '{"tasks": {"reviews": {}}}',
        '{"tasks": {"reviews": 1.0}}',
    ],
)
def test_a_calibration_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / CALIBRATION).write_text(content)
    write_manifest(folder)
    with pytest.raises(CheckpointError, match=CALIBRATION):
        read_model(folder)


def test_a_calibration_belongs_to_its_model(folder: Path) -> None:
    """Changed, removed, or put beside a model that has none: the manifest tells."""
    changed = json.loads((folder / CALIBRATION).read_text())
    changed["tasks"]["reviews"]["temperature"] = 0.4
    write_json(folder / CALIBRATION, changed)
    with pytest.raises(CheckpointError, match="not what was written"):
        read_model(folder)
    (folder / CALIBRATION).unlink()
    with pytest.raises(CheckpointError, match="missing"):
        read_model(folder)
    write_json(folder.parent / "plain" / CALIBRATION, changed)
    with pytest.raises(CheckpointError, match="not in manifest"):
        read_model(folder.parent / "plain")


@pytest.fixture(scope="module")
def stored(encoder: Path) -> StoredModel:
    loaded = tiny_loaded(encoder)
    return StoredModel(tiny_model(encoder), loaded.recipe, loaded.tables, load_tokenizer(encoder), encoder)


@given(outputs=st.data(), temperature=st.floats(0.01, 100))
def test_no_temperature_changes_a_class_not_even_by_rounding(
    stored: StoredModel, outputs: Any, temperature: float
) -> None:
    near = st.integers(-9, 9).map(lambda number: number * 1e-7) | st.floats(-40, 40, width=32)
    for task, width in (("reviews", 5), ("questions", 1)):
        rows = np.array(outputs.draw(st.lists(st.lists(near, min_size=width, max_size=width), min_size=1)), np.float32)
        objective = build_objective(stored.recipe.tasks[task], stored.tables)
        stored.model.temperatures = {}
        before = read_outputs(stored.model, task, objective, rows)
        stored.model.temperatures = {task: temperature}
        after = read_outputs(stored.model, task, objective, rows)
        np.testing.assert_array_equal(before.values, after.values)
        assert after.are_finite


@pytest.mark.parametrize(
    ("loss", "takes"),
    [("cross_entropy", True), ("bce", True), ("mnr", True), ("cosine_embedding", True), ("cosine_triplet", True)]
    + [(name, False) for name in ("mse", "mse_l1", "score_cross_entropy", "cosine_mse")],
)
def test_what_takes_a_temperature(encoder: Path, loss: str, takes: bool) -> None:
    """Every objective that says so is a softmax or sigmoid of its outputs divided by the temperature."""
    loaded = tiny_loaded(encoder)
    task = loaded.recipe.tasks["sentences" if not takes else "reviews" if loss == "cross_entropy" else "questions"]
    options = loaded.tables["objectives"][loss].options(kind=loss)
    objective = build_objective(task, loaded.tables, loss=options)
    assert getattr(objective, "takes_temperature", False) == takes
    if takes:
        outputs = torch.randn(50, objective.outputs, dtype=torch.float64)
        logs = objective.log_probabilities(outputs)
        assert logs is not None
        found = objective.predict(outputs / 0.7).probabilities
        torch.testing.assert_close(found, (logs / 0.7).softmax(1))
