"""Folders of sentence-transformers: the encoder in them is found, and what happens behind it is told."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as theirs
from torch import nn

from manyhead.build.parts import read_parts
from manyhead.build.plan import new_model
from manyhead.encoder.source import locate_encoder
from manyhead.errors import UsageError
from manyhead.inference.model_folder import StoredModel
from manyhead.inference.predictor import Model
from manyhead.recipe.load import load_recipe
from manyhead.training.observer import Observer
from tiny import sample_texts, tiny_encoder, tiny_recipe

TEXTS = [text for text in sample_texts() if len(text) < 90][:6]
OLD = "sentence_transformers.models"


class Notes(Observer):
    """What was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def event(self, text: str) -> None:
        self.lines.append(text)


def sentence_model(folder: Path, pooling: Any = "mean", *behind: Any, old: bool = False) -> Path:
    """A random sentence-transformers model; ``old`` as it was written until version 2, in a folder for each module."""
    modules = [theirs.Transformer(str(tiny_encoder(folder / "source"))), theirs.Pooling(16, pooling), *behind]
    SentenceTransformer(modules=modules).save(str(folder / "model"))
    shutil.rmtree(folder / "source")
    model = folder / "model"
    if old:
        below = model / "0_Transformer"
        below.mkdir()
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (model / name).rename(below / name)
        (below / "sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": false}')
        (model / "sentence_bert_config.json").unlink()
        listed = json.loads((model / "modules.json").read_text())
        for each in listed:
            each["type"] = f"{OLD}.{each['type'].rpartition('.')[2]}"
        listed[0]["path"] = "0_Transformer"
        (model / "modules.json").write_text(json.dumps(listed))
        flags = {f"pooling_mode_{name}": name.startswith(pooling) for name in ("cls_token", "mean_tokens")}
        (model / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 16, **flags}))
    return model


def started(folder: Path, pooling: str) -> tuple[Model, list[str]]:
    """What a run of a siamese task on ``folder`` begins with, and what was told."""
    values, notes = tiny_recipe(folder), Notes()
    values["encoder"] |= {"pooling": pooling, "max_tokens": 64}
    values["tasks"] = {"sentences": values["tasks"]["sentences"]}
    parts = read_parts(load_recipe(values), notes)
    stored = StoredModel(new_model(parts).eval(), parts.recipe, parts.tables, parts.tokenizer, parts.encoder)
    return Model(stored, device="cpu", precision="fp32", threads=1), notes.lines


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("normalizes", [False, True])
def test_embeddings_before_training_are_those_of_encode(tmp_path: Path, pooling: str, *, normalizes: bool) -> None:
    behind = [theirs.Normalize()] if normalizes else []
    folder = sentence_model(tmp_path, pooling, *behind)
    model, (note,) = started(folder, pooling)
    assert note == f"encoder.checkpoint: a sentence-transformers model that pools by {pooling}, as the recipe does"
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    found = model.embed(TEXTS)
    assert np.ptp(expected, axis=0).max() > 1e-3, "the texts are told apart"
    if normalizes:
        found = found / np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_scores_of_pairs_are_the_cosines_of_encode(tmp_path: Path) -> None:
    folder = sentence_model(tmp_path, "mean", theirs.Normalize())
    model, _ = started(folder, "mean")
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    left, right = (SentenceTransformer(str(folder), device="cpu").encode([pair[at] for pair in pairs]) for at in (0, 1))
    found, _ = model.predict_arrays("sentences", pairs)
    assert found.scores is not None
    np.testing.assert_allclose(found.scores, 5 * (left * right).sum(1).clip(0), atol=5e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_old_layout_with_a_folder_for_each_module(tmp_path: Path, pooling: str) -> None:
    folder = sentence_model(tmp_path, pooling, old=True)
    source = locate_encoder(str(folder), None)
    assert source.folder == folder / "0_Transformer"
    model, (note,) = started(folder, pooling)
    assert f"pools by {pooling}, as the recipe does" in note
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(model.embed(TEXTS), expected, atol=1e-5)


def test_another_pooling_and_what_is_left_out_are_told(tmp_path: Path) -> None:
    dense = theirs.Dense(16, 8, activation_function=nn.Tanh())
    folder = sentence_model(tmp_path, "mean", dense, theirs.Normalize())
    settings = folder / "config_sentence_transformers.json"
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | prompts))
    _, (pooled, left_out) = started(folder, "cls")
    assert pooled.endswith("pools by mean, the recipe by cls; write encoder.pooling: mean to begin with its embeddings")
    assert left_out.endswith("left out: Dense (16 to 8, Tanh), the prompt 'query: ' before each text")


@pytest.mark.parametrize("pooling", [["mean", "max"], "weightedmean"])
def test_a_pooling_of_theirs_alone_is_told(tmp_path: Path, pooling: Any) -> None:
    _, (note,) = started(sentence_model(tmp_path, pooling), "mean")
    words = " and ".join(pooling) if isinstance(pooling, list) else pooling
    assert f"pools by {words}, which manyhead has not; the recipe pools by mean" in note


def test_modules_of_other_packages_are_named_and_never_imported(tmp_path: Path) -> None:
    folder = sentence_model(tmp_path)
    listed = json.loads((folder / "modules.json").read_text())
    listed[0]["type"] = "custom_st.Transformer"
    (folder / "custom_st.py").write_text("raise SystemExit('code of the model ran')\n")
    (folder / "modules.json").write_text(json.dumps([*listed, {"type": "evil.Normalize", "path": "9"}]))
    source = locate_encoder(str(folder), None)
    assert source.sentence is not None
    assert source.sentence.left_out == ("the code of custom_st.Transformer", "evil.Normalize")
    assert not source.sentence.normalizes


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ("{", "modules.json: cannot be used"),
        ("[]", "names no module"),
        ("3", "expected a list of modules, each with type and path"),
        ('[{"type": "x"}]', "expected a list of modules"),
        ('["x"]', "expected a list of modules"),
        ("[" * 100_000, "modules.json: cannot be used"),
        (f'[{{"type": "{OLD}.Transformer", "path": "../.."}}]', "outside its folder"),
        (f'[{{"type": "{OLD}.Transformer", "path": "/etc"}}]', "outside its folder"),
        (f'[{{"type": "{OLD}.Transformer", "path": "\\u0000"}}]', "cannot be used"),
        (f'[{{"type": "{OLD}.Transformer", "path": "0_Transformer"}}]', "copy the whole folder again"),
        (f'[{{"type": "{OLD}.WordEmbeddings", "path": "1"}}]', "begins with WordEmbeddings; expected a Transformer"),
        (
            f'[{{"type": "{OLD}.Transformer", "path": ""}}, {{"type": "{OLD}.Pooling", "path": "1"}}]',
            "1/config.json: cannot be read",
        ),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, modules: str, message: str) -> None:
    folder = tiny_encoder(tmp_path / "model")
    (folder / "modules.json").write_text(modules)
    with pytest.raises(UsageError) as raised:
        locate_encoder(str(folder), None)
    assert message in str(raised.value)


def test_pickled_weights_of_the_transformer_are_refused(tmp_path: Path) -> None:
    folder = sentence_model(tmp_path, old=True)
    (folder / "0_Transformer/model.safetensors").rename(folder / "0_Transformer/pytorch_model.bin")
    with pytest.raises(UsageError, match="0_Transformer: has pickled weights"):
        locate_encoder(str(folder), None)
