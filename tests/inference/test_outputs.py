"""Nothing is encoded twice, equal inputs have equal outputs, and training scores by the bits that a model predicts."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manyhead.cli.stored import find_model
from manyhead.data.tokens import tokenize_texts
from manyhead.device import choose_hardware
from manyhead.encoder.tokenizer import load_tokenizer
from manyhead.errors import UsageError
from manyhead.faults import injected
from manyhead.inference import outputs
from manyhead.inference.ahead import ahead
from manyhead.inference.frozen import FrozenModel
from manyhead.inference.model_folder import StoredModel
from manyhead.inference.outputs import predict_store, raw_outputs
from manyhead.inference.predictor import Model
from manyhead.model import MultiTaskModel
from mixed import perturb, tiny_loaded, tiny_model
from tiny import sample_texts, tiny_encoder

TEXTS = sample_texts()[:90]
SINGLES = [(text,) for text in TEXTS]
PAIRS = list(zip(TEXTS[:45], TEXTS[45:], strict=True))


def has_int8() -> bool:
    try:
        choose_hardware("cpu", "int8", torch.get_num_threads())
    except UsageError:
        return False
    return True


needs_int8 = pytest.mark.skipif(not has_int8(), reason="this processor has no VNNI")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("outputs") / "encoder")


def network(encoder: Path, **options: Any) -> MultiTaskModel:
    model = tiny_model(encoder, dropout=0.1, **options)
    perturb(model, spread=0.05)
    return model


def predictor(encoder: Path, precision: str = "fp32", **options: Any) -> Model:
    loaded = tiny_loaded(encoder, **options)
    stored = StoredModel(
        network(encoder, **options).eval(), loaded.recipe, loaded.tables, load_tokenizer(encoder), encoder
    )
    return Model(stored, device="cpu", precision=precision, threads=1)


class Counted:
    """How many sequences went through the encoder."""

    def __init__(self) -> None:
        self.sequences = 0

    def __call__(self, place: str, value: Any) -> Any:
        if place == "evaluation: forward":
            self.sequences += sum(len(part.examples) for part in value)
        return value


@pytest.mark.parametrize("block", [1, 7, 8192])
def test_equal_inputs_are_encoded_once_and_have_equal_outputs(
    encoder: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    model = predictor(encoder)
    once = model.predict_arrays("reviews", SINGLES)[0].probabilities
    monkeypatch.setattr(outputs, "BLOCK_EXAMPLES", block)
    monkeypatch.setattr("manyhead.inference.predictor.BLOCK_EXAMPLES", block)
    with injected(counted := Counted()):
        found, truncated = model.predict_arrays("reviews", SINGLES * 3)
    assert counted.sequences == len({tuple(model.tokenizer.encode(text).ids[:40]) for text in TEXTS})
    assert found.probabilities is not None
    assert once is not None
    thrice = found.probabilities.reshape(3, len(TEXTS), -1)
    np.testing.assert_array_equal(thrice[0], thrice[1])
    np.testing.assert_array_equal(thrice[0], thrice[2])
    np.testing.assert_allclose(thrice[0], once, atol=1e-5)
    np.testing.assert_array_equal(truncated.reshape(3, -1)[0], truncated.reshape(3, -1)[2])


def test_texts_that_many_siamese_pairs_share_are_encoded_once(encoder: Path) -> None:
    model = predictor(encoder)
    hub = [(TEXTS[0], text) for text in TEXTS[1:30]] + [(text, TEXTS[0]) for text in TEXTS[1:30]]
    with injected(counted := Counted()):
        together = model.predict_arrays("sentences", hub)[0].scores
    assert counted.sequences == 30
    alone = [model.predict_arrays("sentences", [pair])[0].values[0] for pair in hub]
    assert together is not None
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_second_text_of_another_segment_is_another_input(encoder: Path) -> None:
    """[CLS] a [SEP] b [SEP] with b in segment 1 is not the same tokens in segment 0."""
    tokenizer = load_tokenizer(encoder)
    model = network(encoder)
    pairs = tokenize_texts(tokenizer, [("dull", "film")], max_tokens=40, siamese=False)
    flat = type(pairs)(pairs.ids, pairs.offsets, pairs.lengths(), pairs.truncated, 1)
    ids: Any = np.concatenate([pairs.ids, flat.ids])
    joined = type(pairs)(
        ids,
        np.concatenate([pairs.offsets, pairs.offsets[-1] + flat.offsets[1:]]),
        np.concatenate([pairs.segment_starts, flat.segment_starts]),
        np.concatenate([pairs.truncated, flat.truncated]),
        1,
    )
    found = raw_outputs(model, "questions", joined, 1)
    assert abs(found[0] - found[1]) > 1e-4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler", "max", "attention"])
def test_a_model_predicts_the_bits_that_training_scores(encoder: Path, precision: str, pooling: str) -> None:
    model = predictor(encoder, precision, pooling=pooling)
    training = network(encoder, pooling=pooling).train()
    training.autocast = model.hardware.autocast
    for task, rows in (("reviews", SINGLES), ("questions", PAIRS), ("sentences", PAIRS)):
        store = tokenize_texts(model.tokenizer, rows, max_tokens=40, siamese=task == "sentences")
        scored = predict_store(training, task, store, model.objectives[task])
        found, _ = model.predict_arrays(task, rows)
        np.testing.assert_array_equal(scored.values, found.values)
        if scored.probabilities is not None:
            np.testing.assert_array_equal(scored.probabilities, found.probabilities)
    assert training.training
    assert training.encoder.training


def test_weights_that_changed_are_read_again(encoder: Path) -> None:
    model = network(encoder)
    store = tokenize_texts(load_tokenizer(encoder), SINGLES, max_tokens=40, siamese=False)
    before = raw_outputs(model, "reviews", store, 5)
    perturb(model.encoder, seed=1, spread=0.1)
    assert np.abs(raw_outputs(model, "reviews", store, 5) - before).max() > 1e-3


@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_outputs_are_those_of_the_models_own_forward(encoder: Path, pooling: str) -> None:
    model = network(encoder, pooling=pooling)
    store = tokenize_texts(load_tokenizer(encoder), PAIRS, max_tokens=40, siamese=True)
    found = raw_outputs(model, "sentences", store, 1)
    fallen_back = FrozenModel(model)
    fallen_back._encoder = None
    np.testing.assert_allclose(found, raw_outputs(fallen_back, "sentences", store, 1), atol=1e-5)


def test_threads_predict_what_one_does(encoder: Path) -> None:
    model = predictor(encoder)
    expected = model.predict("reviews", TEXTS)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: model.predict("reviews", TEXTS), range(8)):
            assert found == expected


def test_ticks_add_up_to_all_examples(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "BLOCK_EXAMPLES", 40)
    model = network(encoder)
    for task, rows, width in (("reviews", SINGLES * 2, 5), ("sentences", PAIRS * 2, 1)):
        store = tokenize_texts(load_tokenizer(encoder), rows, max_tokens=40, siamese=width == 1)
        ticks: list[int] = []
        raw_outputs(model, task, store, width, tick=ticks.append)
        assert sum(ticks) == len(rows)
        assert min(ticks) >= 0


def test_ahead_keeps_order_and_raises_what_was_raised() -> None:
    made: list[int] = []

    def items() -> Any:
        for number in range(6):
            made.append(number)
            yield number
        raise ValueError("no more")

    found = ahead(items())
    for number in range(6):
        assert next(found) == number
        assert len(made) <= number + 2
    with pytest.raises(ValueError, match="no more"):
        next(found)
    assert list(ahead(iter([]))) == []


@needs_int8
@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_int8_predictions_are_near_those_of_fp32(encoder: Path, pooling: str) -> None:
    for task, rows in (("reviews", SINGLES), ("questions", PAIRS)):
        exact = predictor(encoder, pooling=pooling).predict_arrays(task, rows)[0].probabilities
        found = predictor(encoder, "int8", pooling=pooling).predict_arrays(task, rows)[0].probabilities
        assert exact is not None
        assert found is not None
        assert 0 < np.abs(found - exact).max() < 0.05


@needs_int8
def test_int8_is_refused_where_it_would_not_be_used(encoder: Path) -> None:
    for options in ({"experts": {"kind": "low_rank", "rank": 2}}, {"pooling": "attention"}, {"sandwich_norm": True}):
        with pytest.raises(UsageError, match=r"precision: int8.*use bf16 or fp32"):
            predictor(encoder, "int8", **options)
    if torch.cuda.is_available():
        with pytest.raises(UsageError, match="expected device cpu"):
            choose_hardware("cuda", "int8", None)


@needs_int8
def test_a_command_sets_the_precision_of_inference(model_folder: Path) -> None:
    assert find_model(str(model_folder), precision="int8").load().hardware.precision == "int8"
    assert find_model(str(model_folder)).load().hardware.precision == "fp32"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    from manyhead.build import train
    from manyhead.recipe.load import load_recipe
    from tiny import tiny_recipe

    recipe = tiny_recipe(encoder, epochs=1)
    return train(load_recipe(recipe), out=tmp_path_factory.mktemp("model") / "run").path
