"""Vectors for sentence-transformers and adapters for PEFT, read back by these without manyhead."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_makers import exported, family_encoder, saved_model

from manyhead.errors import UsageError
from manyhead.export.check import compare
from manyhead.export.source import Written
from manyhead.inference.predictor import Model

COSINE_MLP: dict[str, Any] = {"sentences": {"head": {"kind": "cosine", "mlp": 5}}}
LINEAR: dict[str, Any] = {"sentences": {"head": "linear", "loss": "mse"}}
# Encoder, its options, and what the task has.
VECTORS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mean": ("bert", {"pooling": "mean"}, {}),
    "max": ("bert", {"pooling": "max", "layer": 1}, LINEAR),
    "pooler": ("roberta", {"pooling": "pooler", "projections": [{"kind": "mlp", "activation": "gelu"}]}, {}),
    "own mlp": ("bert", {"pooling": "cls", "projections": ["dense"]}, COSINE_MLP),
    "low rank": ("electra-narrow", {"pooling": "mean", "experts": {"kind": "low_rank", "rank": 3}}, {}),
}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("encoders")
    return {family: family_encoder(base / family, family) for family in ("bert", "roberta", "electra-narrow")}


@pytest.mark.slow
def test_sentence_transformers_gives_the_models_vectors(encoders: dict[str, Path], tmp_path: Path) -> None:
    written: list[Written] = []
    for name, (family, options, tasks) in VECTORS.items():
        model = saved_model(tmp_path / f"{name} model", encoders[family], encoder_options=options, tasks=tasks)
        done = exported(model, "sentence-transformers", tmp_path / name, check=False)
        (one,) = done.export.written
        assert one.name == "sentences"
        assert (len(done.export.notes) == 1) == (tasks is LINEAR)
        texts = [text for (text,) in one.texts]
        embedded = Model.load(model, precision="fp32").embed(texts, "sentences")
        if tasks is not COSINE_MLP:
            np.testing.assert_allclose(one.expected, embedded, atol=1e-6)
        written.append(replace(one, name=name, folder=f"{name}/{one.folder}"))
    assert [each.line() for each in compare(tmp_path, written) if not each.ok] == []


def test_the_cosine_of_exported_vectors_is_the_score(encoders: dict[str, Path], tmp_path: Path) -> None:
    """Of what is compared with the export, as the test above does."""
    model = saved_model(tmp_path / "model", encoders["bert"], tasks=COSINE_MLP)
    done = exported(model, "sentence-transformers", tmp_path / "out", check=False)
    (one,) = done.export.written
    vectors = dict(zip([text for (text,) in one.texts], torch.from_numpy(one.expected), strict=True))
    pairs = [(first, second) for first in vectors for second in list(vectors)[:2]]
    cosines = [torch.cosine_similarity(vectors[first], vectors[second], dim=0) for first, second in pairs]
    found, _ = Model.load(model, precision="fp32").predict_arrays("sentences", pairs)
    np.testing.assert_allclose(5 * np.array(cosines), found.values, atol=1e-5)


@pytest.mark.slow
def test_peft_gives_the_states_of_each_task(encoders: dict[str, Path], tmp_path: Path) -> None:
    written: list[Written] = []
    for family, experts in (("bert", {"freeze": True}), ("electra-narrow", {"freeze": False})):
        options = {"experts": {"kind": "low_rank", "rank": 3, "alpha": 7.0, **experts}, "layer": -1}
        model = saved_model(tmp_path / f"{family} model", encoders[family], encoder_options=options)
        done = exported(model, "peft", tmp_path / family, check=False)
        assert [each.name for each in done.export.written] == ["reviews", "questions", "sentences"]
        written += [replace(each, folder=f"{family}/{each.folder}") for each in done.export.written]
        assert len({each.expected[:2].tobytes() for each in done.export.written}) == 3
    assert [each.line() for each in compare(tmp_path, written) if not each.ok] == []
    config = json.loads((tmp_path / "bert/reviews/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (3, 7.0)


@pytest.mark.parametrize(
    ("form", "options", "problem"),
    [
        ("peft", {}, r"experts: null: this model has no adapters"),
        ("peft", {"experts": {"kind": "pal_top", "width": 4, "heads": 2}}, r"encoder\.experts: pal_top: .*--to onnx"),
        ("peft", {"experts": "copies"}, r"encoder\.experts: copies"),
        ("sentence-transformers", {"pooling": "attention"}, r"encoder\.pooling: attention: .*--to onnx"),
        ("sentence-transformers", {"sandwich_norm": True}, r"encoder\.sandwich_norm: true"),
        ("sentence-transformers", {"layer": 0}, r"encoder\.layer: 0"),
    ],
)
def test_a_part_without_counterpart_is_named(
    encoders: dict[str, Path], tmp_path: Path, form: str, options: dict[str, Any], problem: str
) -> None:
    model = saved_model(tmp_path / "model", encoders["bert"], encoder_options=options)
    with pytest.raises(UsageError, match=problem):
        exported(model, form, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_vectors_of_no_siamese_task_have_to_be_named(encoders: dict[str, Path], tmp_path: Path) -> None:
    tasks = {"sentences": {"head": "linear", "loss": "mse", "pairing": "concat"}}
    model = saved_model(tmp_path / "model", encoders["bert"], tasks=tasks)
    with pytest.raises(UsageError, match=r"no task of this model is siamese.*one of reviews, questions, sentences"):
        exported(model, "sentence-transformers", tmp_path / "out")
    found = exported(model, "sentence-transformers", tmp_path / "out", "reviews", check=False)
    assert [each.name for each in found.export.written] == ["reviews"]


def test_a_missing_package_is_told_with_its_command(
    encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved_model(tmp_path / "model", encoders["bert"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'manyhead\[export\]'"):
        exported(model, "sentence-transformers", tmp_path / "out")
