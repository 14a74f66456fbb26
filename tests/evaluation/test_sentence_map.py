"""Sentences in a plane: vectors against the model's own poolings, samples alike over classes, and S4's picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

from manyhead.data.tokens import tokenize_texts
from manyhead.encoder.load import read_config
from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.encoder.source import locate_encoder
from manyhead.encoder.tokenizer import load_tokenizer
from manyhead.evaluation import sentence_map
from manyhead.evaluation.sentence_map import Plane, map_task, plane_of, sentence_vectors
from manyhead.inference.frozen import frozen
from manyhead.inference.outputs import blocks_of, run_blocks
from manyhead.model import MultiTaskModel, build_model
from mixed import perturb, tiny_loaded, tiny_model
from tiny import sample_texts, tiny_encoder

TEXTS = sample_texts()[:60]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("maps") / "encoder")


def network(encoder: Path, **options: Any) -> MultiTaskModel:
    model = tiny_model(encoder, **options)
    perturb(model, spread=0.05)
    return model


@pytest.mark.parametrize("layer", [-1, 1])
@pytest.mark.parametrize("packed", [True, False])
def test_vectors_are_those_of_the_models_own_poolings(encoder: Path, layer: int, packed: bool) -> None:
    store = tokenize_texts(load_tokenizer(encoder), [(text,) for text in TEXTS], max_tokens=40, siamese=False)
    for pooling in ("cls", "mean", "attention"):
        model = network(encoder, pooling=pooling, layer=layer)
        assert isinstance(model.encoder, PackedEncoder)
        model.encoder.use_packed(packed)
        captured = model.encoder.capture
        model.train()
        found = sentence_vectors(model, "reviews", store)
        assert model.training
        assert model.encoder.capture == captured
        own = run_blocks(frozen(model), blocks_of(store), lambda vectors: vectors.flatten(1), model.width)
        np.testing.assert_allclose(found[pooling], own, atol=2e-5)


def test_an_encoder_without_attentions_has_the_other_two(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(encoder)
    assert isinstance(model.encoder, PackedEncoder)
    model.encoder.use_packed(False)
    forward = model.encoder.model.forward

    def without(*args: Any, output_attentions: bool = False, **options: Any) -> Any:
        if output_attentions:
            raise TypeError("this family has no attentions")
        return forward(*args, **options)

    monkeypatch.setattr(model.encoder.model, "forward", without)
    store = tokenize_texts(load_tokenizer(encoder), [(text,) for text in TEXTS], max_tokens=40, siamese=False)
    assert sentence_vectors(model, "reviews", store).keys() == {"cls", "mean"}


@pytest.mark.parametrize("kind", ["copies", {"kind": "low_rank", "rank": 2}])
def test_an_encoder_with_experts_reads_for_the_task(encoder: Path, kind: Any) -> None:
    model = network(encoder, experts=kind)
    store = tokenize_texts(load_tokenizer(encoder), [(text,) for text in TEXTS], max_tokens=40, siamese=False)
    one, other = (sentence_vectors(model, task, store) for task in ("reviews", "questions"))
    assert one.keys() == {"cls", "mean", "attention"}
    assert np.abs(one["mean"] - other["mean"]).max() > 1e-4


def test_a_plane_is_that_of_the_first_two_components() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32) * [5, 3, 1, 1, 0.5, 0.1]
    found = plane_of(vectors)
    assert found is not None
    expected = PCA(2, svd_solver="full").fit(vectors)
    points = expected.transform(vectors)
    np.testing.assert_allclose(np.abs([found.x, found.y]), np.abs(points.T), rtol=2e-3)
    np.testing.assert_allclose(found.variance, expected.explained_variance_ratio_, rtol=1e-3)


@pytest.mark.parametrize("vectors", [np.zeros((0, 4)), np.ones((1, 4)), np.ones((9, 4)), np.eye(4)[[0, 1, 0, 1]]])
def test_too_few_different_vectors_make_no_plane(vectors: Any) -> None:
    assert plane_of(vectors.astype(np.float32)) is None


def data_of(encoder: Path, name: str) -> tuple[MultiTaskModel, Any, Any]:
    from manyhead.data.cache import load_task_data
    from manyhead.data.resolve import resolve_files

    loaded = tiny_loaded(encoder)
    whole = {key: task.model_copy(update={"limit": {}}) for key, task in loaded.recipe.tasks.items()}
    recipe = loaded.recipe.with_changes(tasks=whole)
    data = load_task_data(name, "dev", recipe, load_tokenizer(encoder), resolve=resolve_files(recipe))
    return network(encoder), recipe, data


def test_a_sample_is_bounded_alike_over_classes_and_the_same_each_time(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, recipe, data = data_of(encoder, "reviews")
    monkeypatch.setattr(sentence_map, "MOST_SEQUENCES", 20)
    first, second = (map_task(model, recipe, data) for _ in range(2))
    assert first == second
    json.dumps(first.as_dict(), allow_nan=False)
    assert (first.n, first.of) == (20, data.n_examples)
    assert sorted(np.unique(first.targets, return_counts=True)[1]) == [4] * 5
    assert list(first.ids) == [data.ids[row] for row in first.rows]
    monkeypatch.setattr(sentence_map, "MOST_TOKENS", 100)
    short = map_task(model, recipe, data)
    assert 1 <= short.n < 20
    assert data.take(np.array(short.rows)).tokens.lengths().sum() <= 100
    monkeypatch.setattr(sentence_map, "MOST_TOKENS", 1)
    one = map_task(model, recipe, data)
    assert one.n == 1
    assert set(one.planes.values()) == {None}
    assert "no plane" in one.notes[0]


@pytest.mark.parametrize(
    ("task", "reads", "texts"), [("questions", "pair", {0}), ("sentences", "text of a pair", {0, 1})]
)
def test_pairs_are_read_as_the_model_reads_them(encoder: Path, task: str, reads: str, texts: set[int]) -> None:
    model, recipe, data = data_of(encoder, task)
    found = map_task(model, recipe, data)
    assert found.reads == reads
    assert set(found.texts) == texts
    assert len(found.rows) == len(found.targets) == found.n * len(texts)
    assert len(found.rows) <= sentence_map.MOST_SEQUENCES


# Of the kind of S4's: two that differ in a word, and one of another subject.
SENTENCES = (
    "The girl is singing in the garden",
    "The girl is shouting in the garden",
    "The night train is about to leave for Vienna",
)


def distances(points: np.ndarray) -> list[float]:
    """Between the first two of three points, the first and the third, the second and the third."""
    return [float(np.linalg.norm(points[a] - points[b])) for a, b in ((0, 1), (0, 2), (1, 2))]


@pytest.mark.embedded
def test_the_published_picture_with_the_embedded_encoder(encoder: Path) -> None:
    """S4, of such sentences: by mean embeddings the first two are nearer to each other than to the third, by CLS not.

    Here CLS agrees with the mean: this encoder was trained to embed sentences, which S4's was not.
    """
    folder = locate_encoder("embedded", None).folder
    recipe = tiny_loaded(encoder).recipe
    config = read_config(folder, dropout=0.1, attention_dropout=None)
    model = build_model(recipe, tiny_loaded(encoder).tables, config, folder)
    store = tokenize_texts(load_tokenizer(folder), [(text,) for text in SENTENCES], max_tokens=40, siamese=False)
    vectors = sentence_vectors(model, "reviews", store)
    for name in ("mean", "attention", "cls"):
        plane = plane_of(vectors[name])
        assert isinstance(plane, Plane)
        for points in (vectors[name], np.array([plane.x, plane.y]).T):
            together, *apart = distances(points)
            assert together < 0.8 * min(apart), name
