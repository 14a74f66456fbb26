"""Starting from a classification checkpoint: before training, a task predicts what the checkpoint itself does."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, BertForTokenClassification

from manyhead.build import train
from manyhead.build.parts import Parts, read_parts
from manyhead.build.plan import new_model
from manyhead.encoder.classifier import LAYOUTS, head_text
from manyhead.encoder.tokenizer import load_tokenizer
from manyhead.errors import RecipeError, StoppedError, UsageError
from manyhead.inference.model_folder import StoredModel, write_model
from manyhead.inference.predictor import Model
from manyhead.recipe.load import load_recipe, recipe_yaml
from manyhead.recipe.yaml_text import parse_value
from manyhead.training.observer import Observer
from stopping import StopAt
from tiny import sample_texts, tiny_recipe, tiny_tokenizer

WIDTH = 16
GRADES = ["awful", "poor", "mixed", "good", "excellent"]
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "dim", "embedding_size", "pooler_hidden_size"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "num_attention_heads", "n_heads"), 2),
    **dict.fromkeys(("intermediate_size", "hidden_dim"), 32),
    "max_position_embeddings": 80,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}


class Notes(Observer):
    """What was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def event(self, text: str) -> None:
        self.lines.append(text)


def classifier(folder: Path, labels: list[str] | None, *, family: str = "bert", **settings: Any) -> Path:
    """Writes a random classification checkpoint as transformers does, its head far from 0."""
    tokenizer = tiny_tokenizer()
    named = {} if labels is None else {"id2label": dict(enumerate(labels))}
    sizes = SIZES | {"vocab_size": tokenizer.get_vocab_size(), "label2id": None} | named | settings
    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **sizes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("classifier", "pooler")):
                parameter.normal_(0, 0.5)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def recipe(encoder: Path, task: str = "reviews", *, head: Any = "linear", **changes: Any) -> dict[str, Any]:
    """The tiny recipe with one task on a classification checkpoint of BERT."""
    values = tiny_recipe(encoder)
    values["encoder"] |= {"pooling": "pooler", "max_tokens": 64}
    values["tasks"] = {task: values["tasks"][task] | {"head": head, "loss": "cross_entropy"} | changes}
    return values


def read(values: Mapping[str, Any]) -> tuple[Parts, list[str]]:
    notes = Notes()
    return read_parts(load_recipe(values), notes), notes.lines


def before_training(values: Mapping[str, Any]) -> Model:
    """What a run of the recipe begins with, ready to predict."""
    parts, _ = read(values)
    stored = StoredModel(new_model(parts).eval(), parts.recipe, parts.tables, parts.tokenizer, parts.encoder)
    return Model(stored, device="cpu", precision="fp32", threads=1)


def predicted(values: Mapping[str, Any], texts: list[Any]) -> NDArray[np.float32]:
    """Probabilities of the only task's classes, or its scores, before training."""
    (task,) = values["tasks"]
    found, _ = before_training(values).predict_arrays(task, texts)
    result = found.scores if found.probabilities is None else found.probabilities
    assert result is not None
    return result


def logits(folder: Path, texts: list[Any]) -> torch.Tensor:
    """The checkpoint's own outputs in transformers, one text at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = load_tokenizer(folder)
    found: list[torch.Tensor] = []
    for text in texts:
        encoding = tokenizer.encode(*(text if isinstance(text, tuple) else (text,)))
        inputs = {"input_ids": torch.tensor([encoding.ids])}
        if getattr(model.config, "type_vocab_size", 0) == 2:
            inputs["token_type_ids"] = torch.tensor([encoding.type_ids])
        with torch.no_grad():
            found.append(model(**inputs).logits[0])
    return torch.stack(found)


def head_of(family: str) -> Any:
    return parse_value(head_text(LAYOUTS[family], WIDTH))


TEXTS = [text for text in sample_texts() if len(text) < 100][:6]


# Equal predictions


@pytest.mark.parametrize("family", sorted(LAYOUTS))
def test_before_training_predictions_are_the_checkpoints(tmp_path: Path, family: str) -> None:
    folder = classifier(tmp_path, GRADES, family=family)
    values = recipe(folder, head=head_of(family), head_from="checkpoint")
    values["encoder"]["pooling"] = LAYOUTS[family].pooling
    found = predicted(values, TEXTS)
    expected = logits(folder, TEXTS).softmax(1).numpy()
    assert expected.std(0).max() > 1e-3, "the texts are told apart"
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_classes_in_another_order_are_mapped_by_name(tmp_path: Path) -> None:
    theirs = ["Good", "poor", "EXCELLENT", "awful", "mixed"]
    folder = classifier(tmp_path, theirs)
    parts, notes = read(recipe(folder))
    (note,) = [line for line in notes if "head of reviews" in line]
    assert "awful from awful, poor from poor, mixed from mixed, good from Good" in note
    assert note.endswith("by name")
    assert parts.start.kept["heads.reviews"] in note
    found = predicted(recipe(folder), TEXTS)
    expected = logits(folder, TEXTS).softmax(1)[:, [3, 1, 4, 0, 2]]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(("labels", "order"), [(["different", "same"], [0, 1]), (["same", "different"], [1, 0])])
@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_pairs_with_two_logits_or_their_difference(
    tmp_path: Path, labels: list[str], order: list[int], loss: str
) -> None:
    folder = classifier(tmp_path, labels)
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    found = predicted(recipe(folder, "questions", loss=loss), pairs)
    expected = logits(folder, pairs).softmax(1)[:, order]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_one_output_is_a_score_or_a_logit_where_that_is_asked(tmp_path: Path) -> None:
    folder = classifier(tmp_path, None, num_labels=1)
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    expected = logits(folder, pairs)[:, 0]
    asked = {"head_from": "checkpoint"}
    scored = recipe(folder, "sentences", pairing="concat", **asked) | {}
    scored["tasks"]["sentences"]["loss"] = "mse"
    found = predicted(scored, pairs)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    found = predicted(recipe(folder, "questions", loss="bce", **asked), pairs)
    np.testing.assert_allclose(found[:, 1], expected.sigmoid().numpy(), atol=1e-5)
    parts, notes = read(recipe(folder, "questions", loss="bce"))
    assert "heads.questions" in parts.start.new
    assert any("says not of what; expected head_from: checkpoint, to take it for the logit of same" in n for n in notes)


def test_without_names_numbers_decide_only_where_that_is_asked(tmp_path: Path) -> None:
    folder = classifier(tmp_path, None, num_labels=5)
    assert "heads.reviews" in read(recipe(folder))[0].start.new
    assert "LABEL_0" in read(recipe(folder))[1][0]
    mixed = {3: "good", 0: "awful", 4: "excellent", 1: "poor", 2: "mixed"}
    for labels, order, by in (
        (mixed, [3, 0, 4, 1, 2], "by the cells' numbers"),
        (dict(enumerate(GRADES)), [0, 1, 2, 3, 4], "by the cells' numbers"),
    ):
        values = recipe(folder, labels=labels, head_from="checkpoint")
        assert by in read(values)[1][0]
        found = predicted(values, TEXTS)
        np.testing.assert_allclose(found, logits(folder, TEXTS).softmax(1)[:, order], atol=1e-5)
    named = classifier(tmp_path / "cells", ["0", "1", "2", "3", "4"])
    assert "from 3, excellent from 4, by cell value" in read(recipe(named))[1][0]


# What is kept and what is new


def test_head_is_new_where_names_differ_or_the_recipe_says_so(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "five", ["a", "b", "c", "d", "e"])
    parts, (note,) = read(recipe(folder))
    assert note == (
        "encoder.checkpoint: the head of reviews is new: the checkpoint's classes are a, b, c, d, e, the task's "
        "awful, poor, mixed, good, excellent; expected the same names, in any order"
    )
    assert parts.start.as_dict() == {
        "kept": {"encoder": "the checkpoint's", "pooling": "the checkpoint's pooler"},
        "new": {"heads.reviews": note.partition("is new: ")[2].partition(";")[0]},
    }
    fitting = classifier(tmp_path / "fitting", GRADES)
    assert read(recipe(fitting, head_from="new"))[0].start.new == {"heads.reviews": "the recipe wants a new one"}
    ours = before_training(recipe(fitting, head_from="new")).network.state_dict()
    bare = before_training(recipe(folder)).network.state_dict()
    assert torch.equal(ours["heads.task_reviews.dense.weight"], bare["heads.task_reviews.dense.weight"])


def test_a_head_that_names_fit_is_told_what_it_takes(tmp_path: Path) -> None:
    folder = classifier(tmp_path, GRADES, family="roberta")
    values = recipe(folder)
    values["encoder"] |= {"projections": ["dense"], "layer": 1, "sandwich_norm": True, "experts": "pal_top"}
    values["encoder"]["experts"] = {"kind": "pal_top", "width": 8, "heads": 2}
    (note,) = read(values)[1]
    assert note.endswith(
        "expected encoder.pooling: cls, head: {kind: mlp, width: 16, activation: tanh, dropout: 0.1}, no "
        "encoder.projections, encoder.layer: -1, encoder.sandwich_norm: false, no encoder.experts but copies or "
        "low_rank"
    )


def test_one_of_several_tasks_takes_it(tmp_path: Path) -> None:
    values = tiny_recipe(classifier(tmp_path, ["same", "different"]))
    values["encoder"]["pooling"] = "pooler"
    values["tasks"]["questions"] |= {"head": "linear"}
    parts, (note,) = read(values)
    assert "head of questions" in note
    assert set(parts.start.kept) == {"encoder", "pooling", "heads.questions"}
    assert set(parts.start.new) == {"heads.reviews", "heads.sentences"}


def test_copies_and_low_rank_experts_begin_as_the_checkpoint(tmp_path: Path) -> None:
    folder = classifier(tmp_path, GRADES)
    expected = logits(folder, TEXTS).softmax(1)
    for experts in ("copies", {"kind": "low_rank", "rank": 2}):
        values = recipe(folder, head_from="checkpoint")
        values["encoder"]["experts"] = experts
        found = predicted(values, TEXTS)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_a_run_records_it_and_resumes(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "checkpoint", GRADES)
    values = recipe(folder, head_from="checkpoint", limit={"train": 16, "dev": 4})
    with pytest.raises(StoppedError):
        train(load_recipe(values), out=tmp_path / "run", observer=StopAt(3))
    run = train(load_recipe(values), out=tmp_path / "run", resume=True)
    whole = train(load_recipe(values), out=tmp_path / "whole")
    state = json.loads((run.path / "state.json").read_text())
    assert set(state["start"]["kept"]) == {"encoder", "pooling", "heads.reviews"}
    assert state["start"]["new"] == {}
    weights = [load_file(each.path / "model/weights.safetensors") for each in (run, whole)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    later = load_recipe(values | {"encoder": values["encoder"] | {"checkpoint": str(run.path)}})
    assert set(read_parts(later, Observer()).start.kept) == {"encoder", "pooling", "heads.reviews"}
    assert "head_from: checkpoint" in recipe_yaml(later.recipe)
    assert "head_from" not in recipe_yaml(load_recipe(recipe(folder)).recipe)


# What is asked and cannot be


def refused(values: Mapping[str, Any], error: type[Exception] | tuple[type[Exception], ...] = RecipeError) -> str:
    with pytest.raises(error) as raised:
        read(values)
    return str(raised.value)


def test_a_head_that_is_asked_for_and_cannot_be(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"head_from": "checkpoint"}
    encoder = classifier(tmp_path / "tokens", GRADES)
    config = AutoConfig.from_pretrained(encoder)
    BertForTokenClassification(cast("BertConfig", config)).save_pretrained(encoder)
    assert "tasks.reviews.head_from: the checkpoint's head cannot be taken over: the checkpoint has no" in refused(
        recipe(encoder, **asked)
    )
    three = classifier(tmp_path / "three", ["a", "b", "c"])
    assert "the checkpoint has 3 classes (a, b, c), the task 5 (awful, poor" in refused(recipe(three, **asked))
    other = classifier(tmp_path / "other", ["a", "b", "c", "d", "e"])
    message = refused(recipe(other, **asked))
    assert "classes are a, b, c, d, e, the task's awful, poor, mixed, good, excellent; expected the same" in message
    several = classifier(tmp_path / "several", GRADES, problem_type="multi_label_classification")
    assert "with yes or no; expected one class of several" in refused(recipe(several, **asked))
    scores = recipe(other, "sentences", pairing="concat", **asked)
    scores["tasks"]["sentences"]["loss"] = "mse"
    assert "gives 5 classes (a, b, c, d, e), not a score" in refused(scores)
    single = classifier(tmp_path / "single", None, num_labels=1)
    assert "gives one number, the loss cross_entropy reads 5" in refused(recipe(single, **asked))
    fitting = classifier(tmp_path / "fitting", GRADES)
    hidden = refused(recipe(fitting, head="hidden", **asked))
    assert "expected head: {kind: linear, dropout: 0.1}; use another" in hidden
    modern = classifier(tmp_path / "modern", GRADES, family="modernbert", global_attn_every_n_layers=1)
    assert "no head of manyhead computes what ModernBertForSequenceClassification does" in refused(
        recipe(modern, **asked)
    )


def test_a_head_of_a_model_of_ours_that_is_asked_for(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "checkpoint", GRADES)
    parts, run = read(recipe(folder))[0], tmp_path / "run"
    (tmp_path / "files").mkdir()
    parts.save_encoder(tmp_path / "files")
    write_model(run, new_model(parts), recipe_yaml(parts.recipe), tmp_path / "files")
    asked: dict[str, Any] = {"head_from": "checkpoint"}
    assert "heads.reviews" in read(recipe(run, **asked))[0].start.kept
    assert "heads.reviews" in read(recipe(run, head_from="new"))[0].start.new
    theirs = load_file(run / "weights.safetensors")["heads.task_reviews.dense.weight"]
    for choice, same in (("checkpoint", True), ("auto", True), ("new", False)):
        model = new_model(read(recipe(run, head_from=choice))[0])
        assert torch.equal(model.state_dict()["heads.task_reviews.dense.weight"], theirs) == same
    assert "the checkpoint has no task 'questions'; expected one of reviews" in refused(
        recipe(run, "questions", **asked)
    )
    reordered = dict(reversed(list(enumerate(GRADES))))
    assert "classes are awful, poor, mixed, good, excellent, the task's excellent" in refused(
        recipe(run, labels=reordered, **asked)
    )
    assert "another shape, loss or pairing" in refused(recipe(run, head="mlp", **asked))


# Damage


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id2label": {"0": "a"}}, "id2label does not name the 5 outputs"),
        ({"id2label": dict.fromkeys("01234")}, "id2label does not name the 5 outputs"),
        ({"architectures": "BertForSequenceClassification"}, "the checkpoint has no classification head"),
        ({"architectures": None}, "the checkpoint has no classification head"),
        ({"model_type": "roberta"}, "its weights lack 'classifier.dense.weight'"),
    ],
)
def test_config_that_does_not_fit_the_head(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = classifier(tmp_path, GRADES)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    assert message in refused(recipe(folder, head_from="checkpoint"), (RecipeError, UsageError))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("classifier.weight", None, "lack 'classifier.weight'"),
        ("classifier.bias", (4,), "does not fit an encoder of width 16"),
        ("classifier.bias", (), "does not fit an encoder of width 16"),
        ("classifier.weight", (5, 12), "classifier.weight [5, 12]"),
        ("classifier.weight", (5,), "classifier.weight [5]"),
    ],
)
def test_weights_of_the_head_that_do_not_fit(
    tmp_path: Path, name: str, shape: tuple[int, ...] | None, message: str
) -> None:
    folder = classifier(tmp_path, GRADES)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(name)
    save_file(tensors | ({} if shape is None else {name: torch.zeros(shape)}), folder / "model.safetensors")
    assert message in refused(recipe(folder), UsageError)


@pytest.mark.parametrize("bytes_kept", [0, 4, 300, 5000])
def test_damaged_weights(tmp_path: Path, bytes_kept: int) -> None:
    folder = classifier(tmp_path, GRADES)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:bytes_kept])
    message = refused(recipe(folder), UsageError)
    assert "cannot be read" in message
    assert "expected safetensors; copy it again" in message


def test_half_precision_heads_are_read_in_fp32(tmp_path: Path) -> None:
    folder = classifier(tmp_path, GRADES)
    tensors = {name: each.half() for name, each in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    found = predicted(recipe(folder), TEXTS)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    model.save_pretrained(folder)
    np.testing.assert_allclose(found, logits(folder, TEXTS).softmax(1), atol=1e-5)
