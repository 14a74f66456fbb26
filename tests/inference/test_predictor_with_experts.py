"""A model with experts reads each text for a task; and a threshold moves what is predicted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manyhead.encoder.tokenizer import load_tokenizer
from manyhead.errors import UsageError
from manyhead.inference.model_folder import StoredModel
from manyhead.inference.predictor import Model
from mixed import perturb, tiny_loaded, tiny_model
from tiny import tiny_encoder

TEXTS = ["a good film", "dull", "the meal was cold and the room was loud"]
PAIRS = [("how do I boil an egg", "boiling eggs"), ("same", "same")]
EXPERTS: dict[str, Any] = {
    "low_rank": {"kind": "low_rank", "rank": 4},
    "pal_top": {"kind": "pal_top", "width": 4, "heads": 2},
    "pal_parallel": {"kind": "pal_parallel", "width": 4, "heads": 2},
    "copies": {"kind": "copies"},
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("predictor") / "encoder")


def predictor(encoder: Path, precision: str = "fp32", **options: Any) -> Model:
    loaded, network = tiny_loaded(encoder, **options), tiny_model(encoder, **options)
    perturb(network, spread=0.02)
    stored = StoredModel(network.eval(), loaded.recipe, loaded.tables, load_tokenizer(encoder), encoder)
    return Model(stored, device="cpu", precision=precision, threads=1)


@pytest.mark.parametrize("kind", EXPERTS)
def test_all_tasks_are_each_task_with_its_own_expert(encoder: Path, kind: str) -> None:
    model = predictor(encoder, experts=EXPERTS[kind])
    for texts in (TEXTS, PAIRS):
        for task, predictions in model.predict_all(texts).items():
            assert predictions == model.predict(task, texts)
    assert list(model.predict_all(PAIRS)) == ["questions", "sentences"]


@pytest.mark.parametrize("kind", EXPERTS)
def test_a_text_is_embedded_for_a_task(encoder: Path, kind: str) -> None:
    model = predictor(encoder, experts=EXPERTS[kind])
    one, other = model.embed(TEXTS, task="reviews"), model.embed(TEXTS, "questions")
    assert one.shape == (len(TEXTS), 16)
    assert not np.allclose(one, other, atol=1e-3)
    with pytest.raises(UsageError, match=r"needs a task.*reviews, questions, sentences.*task=NAME"):
        model.embed(TEXTS)
    with pytest.raises(UsageError, match="no task 'moods'"):
        model.embed(TEXTS, task="moods")


def test_without_experts_the_task_makes_no_difference(encoder: Path) -> None:
    model = predictor(encoder)
    np.testing.assert_array_equal(model.embed(TEXTS), model.embed(TEXTS, task="reviews"))
    with pytest.raises(UsageError, match="no task 'moods'"):
        model.embed(TEXTS, task="moods")


@pytest.mark.parametrize("kind", EXPERTS)
def test_bf16_predictions_are_those_of_autocast(encoder: Path, kind: str) -> None:
    """Dense weights cast once give the bits of weights cast in each forward."""
    model = predictor(encoder, "bf16", experts=EXPERTS[kind])
    training = tiny_model(encoder, experts=EXPERTS[kind])
    perturb(training, spread=0.02)
    training.autocast = torch.bfloat16
    stored = predictor(encoder, "fp32", experts=EXPERTS[kind])
    stored.network.load_state_dict(training.state_dict())
    stored.network.autocast = torch.bfloat16
    assert model.predict("reviews", TEXTS) == stored.predict("reviews", TEXTS)


def test_a_threshold_is_taken_off_the_logit_before_it_predicts(encoder: Path) -> None:
    model = predictor(encoder)
    model.network.thresholds.register_buffer("task_questions", torch.zeros(()))
    before = model.predict_arrays("questions", PAIRS)[0].probabilities
    assert before is not None
    logits = np.log(before[:, 1] / before[:, 0])
    model.network.set_threshold("questions", float(logits.mean()))
    after = model.predict_arrays("questions", PAIRS)[0]
    assert after.probabilities is not None
    expected = 1 / (1 + np.exp(-(logits - logits.mean())))
    np.testing.assert_allclose(after.probabilities[:, 1], expected, rtol=1e-4)
    np.testing.assert_array_equal(after.values, (logits > logits.mean()).astype(np.int64))
    together = [found.probabilities for found in model.predict_all(PAIRS)["questions"]]
    np.testing.assert_allclose([list((each or {}).values())[1] for each in together], expected, rtol=1e-4)
