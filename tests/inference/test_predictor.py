"""Predictions from a trained tiny model: the same in any batch, from one encoding, and with clear refusals."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import count, repeat
from pathlib import Path
from threading import Barrier
from typing import Any, cast

import numpy as np
import pytest

from manyhead.build import train
from manyhead.errors import CheckpointError, UsageError
from manyhead.files import write_manifest
from manyhead.inference import predictor
from manyhead.inference.predictor import Model, Prediction
from manyhead.recipe.load import load_recipe
from tiny import tiny_encoder, tiny_recipe

TEXTS = ["a good film", "dull", "", "the meal was cold and the room was loud " * 9, "emoji 😀 and \u202e marks"]
PAIRS = [("how do I boil an egg", "boiling eggs"), ("", "x"), ("same", "same"), ("long " * 60, "short")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("model")
    return train(load_recipe(tiny_recipe(tiny_encoder(base / "encoder"))), out=base / "run").path


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return Model.load(folder)


def test_a_text_is_predicted_the_same_alone_and_in_any_company(model: Model) -> None:
    for task, texts in (("reviews", TEXTS), ("questions", PAIRS), ("sentences", PAIRS)):
        together, truncated = model.predict_arrays(task, texts)
        backwards, _ = model.predict_arrays(task, texts[::-1])
        field = "scores" if together.probabilities is None else "probabilities"
        alone = [getattr(model.predict_arrays(task, [text])[0], field)[0] for text in texts]
        np.testing.assert_allclose(getattr(together, field), alone, atol=1e-5)
        np.testing.assert_allclose(getattr(together, field), getattr(backwards, field)[::-1], atol=1e-5)
        assert truncated.tolist() == [len(str(text)) > 200 for text in texts]


def test_all_fitting_heads_from_one_encoding_equal_each_head_alone(model: Model) -> None:
    found = model.predict_all(PAIRS)
    assert list(found) == ["questions", "sentences"]
    for task, predictions in found.items():
        for one, other in zip(predictions, model.predict(task, PAIRS), strict=True):
            assert one.value == pytest.approx(other.value, abs=1e-5)
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert list(model.predict_all(TEXTS)) == ["reviews"]


def test_predictions_say_label_cell_and_probabilities(model: Model) -> None:
    review = model.predict("reviews", ["a good film"])[0]
    probabilities = review.probabilities
    assert probabilities is not None
    assert list(probabilities) == ["awful", "poor", "mixed", "good", "excellent"]
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert review.label == max(probabilities, key=lambda label: probabilities[label])
    assert review.value == list(probabilities).index(str(review.label))
    score = model.predict("sentences", [("a", "b")])[0]
    assert score.label is None
    assert score.value == score.score


def test_no_texts_give_no_predictions(model: Model) -> None:
    assert model.predict("reviews", []) == []
    assert model.predict("sentences", []) == []
    assert model.predict_all([]) == {}


def test_embeddings_do_not_depend_on_company(model: Model) -> None:
    vectors = model.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 16)
    np.testing.assert_allclose(vectors[1], model.embed([TEXTS[1]])[0], atol=1e-5)


def test_the_model_folder_alone_gives_the_runs_predictions(folder: Path, model: Model, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    (folder / "model").rename(moved)
    try:
        assert Model.load(moved).predict("reviews", TEXTS) == model.predict("reviews", TEXTS)
        assert Model.load(folder).predict("reviews", TEXTS) == model.predict("reviews", TEXTS)
    finally:
        moved.rename(folder / "model")


def test_wrong_calls_say_what_is_expected(model: Model) -> None:
    with pytest.raises(UsageError, match=r"no task 'moods'.*reviews"):
        model.predict("moods", ["x"])
    with pytest.raises(UsageError, match="a pair of texts"):
        model.predict("questions", ["x"])
    with pytest.raises(UsageError, match="put it in a list"):
        model.predict("reviews", "x")
    for odd in ([("x", None)], [None], [3], 7, None):
        with pytest.raises(UsageError, match="expected a"):
            model.predict("reviews", cast("Any", odd))
    for mixed in (["a", ("b", "c")], [("b", "c"), "a"]):
        with pytest.raises(UsageError, match="text 1"):
            model.predict_all(mixed)
    with pytest.raises(UsageError, match="2 texts"):
        model.embed(cast("Any", [("b", "c")]))


def test_a_missing_or_damaged_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"recipe\.yaml is missing"):
        Model.load(tmp_path)
    copy = Path(shutil.copytree(folder / "model", tmp_path / "copy"))
    weights = copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors has \d+ bytes"):
        Model.load(copy)


def test_a_model_never_chooses_the_code_that_runs(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder / "model", tmp_path / "copy"))
    recipe = (copy / "recipe.yaml").read_text(encoding="utf-8")
    assert "plugins: []" in recipe
    (copy / "recipe.yaml").write_text(recipe.replace("plugins: []", "plugins: [evil_module]"), encoding="utf-8")
    write_manifest(copy)
    with pytest.raises(UsageError, match="--plugin evil_module"):
        Model.load(copy)


def test_iterables_and_streams_give_what_lists_give(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "STREAM_ROWS", 2)
    expected = model.predict("reviews", TEXTS)
    assert model.predict("reviews", iter(TEXTS)) == expected
    assert_close(list(model.predict_stream("reviews", iter(TEXTS))), expected)
    left, right = zip(*PAIRS, strict=True)
    assert model.predict("questions", zip(left, right, strict=True)) == model.predict("questions", PAIRS)
    assert model.predict_all(iter(PAIRS)) == model.predict_all(PAIRS)
    np.testing.assert_array_equal(model.embed(iter(TEXTS)), model.embed(TEXTS))
    both = model.predict_all(PAIRS)
    for tasks in (None, ["questions", "sentences"]):
        found = list(model.predict_stream(tasks, iter(PAIRS)))
        assert [list(each) for each in found] == [["questions", "sentences"]] * len(PAIRS)
        for task, predictions in both.items():
            assert_close([each[task] for each in found], predictions)


def assert_close(found: list[Prediction], expected: list[Prediction]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.label, one.truncated) == (other.label, other.truncated)
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_a_stream_takes_no_more_than_it_needs(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "STREAM_ROWS", 3)
    taken = count()
    found = model.predict_stream("reviews", (f"text {next(taken)}" for _ in repeat(None)))
    assert next(taken) == 0
    assert [next(found).label is None for _ in range(2)] == [False, False]
    assert next(taken) == 4
    with pytest.raises(UsageError, match="text 4 is not text but 7"):
        list(model.predict_stream("reviews", ["a", "b", "c", "d", cast("Any", 7)]))
    with pytest.raises(UsageError, match="no task 'moods'"):
        model.predict_stream("moods", [])
    with pytest.raises(UsageError, match="put it in a list"):
        model.predict_stream("reviews", "x")
    assert list(model.predict_stream(None, [])) == []


def test_ticks_count_each_text_once(model: Model) -> None:
    told: list[int] = []
    model.predict_all(PAIRS * 3, tick=told.append)
    assert sum(told) == len(PAIRS) * 3
    told.clear()
    list(model.predict_stream("reviews", TEXTS, tick=told.append))
    assert sum(told) == len(TEXTS)
    told.clear()
    model.embed(TEXTS, tick=told.append)
    assert sum(told) == len(TEXTS)


def test_threads_that_share_a_model_get_what_one_gets(folder: Path) -> None:
    """Long and short texts side by side, so that a truncation or a mode left behind by another thread would show."""
    texts = [" ".join([word] * times) for word in ("good", "bad", "room", "film") for times in (1, 3, 60)]
    pairs = list(zip(texts, texts[::-1], strict=True))
    alone = Model.load(folder)
    expected = (alone.predict("reviews", texts), alone.predict_all(pairs), alone.embed(texts).tolist())
    shared = Model.load(folder)  # its tokenizers are made by whoever comes first
    together = Barrier(4)

    def ask(number: int) -> None:
        together.wait()
        for times in range(6):
            match (number + times) % 3:
                case 0:
                    assert shared.predict("reviews", texts) == expected[0]
                case 1:
                    assert shared.predict_all(pairs) == expected[1]
                case _:
                    assert shared.embed(texts).tolist() == expected[2]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, range(4)))
    assert not shared.network.training


def test_a_model_left_in_training_mode_is_used_by_threads_in_evaluation_mode(folder: Path) -> None:
    model = Model.load(folder)
    expected = model.predict("reviews", TEXTS)
    model.network.train()
    with ThreadPoolExecutor(4) as threads:
        assert all(found == expected for found in threads.map(lambda _: model.predict("reviews", TEXTS), range(12)))
