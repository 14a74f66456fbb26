"""The model as a whole: passes, thresholds, projections, names, seeds and counts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from manyhead.encoder import DenseProjection, MlpProjection, projections
from manyhead.encoder.load import read_config
from manyhead.model import build_model, load_weights, parameter_counts, save_weights
from manyhead.recipe.load import LoadedRecipe, load_recipe
from mixed import LENGTHS, mixed_batch, tiny_loaded, tiny_model
from tiny import tiny_encoder, tiny_recipe


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("model") / "encoder")


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_a_pass_gives_outputs_and_the_vectors_that_heads_read(encoder: Path) -> None:
    model, batch = tiny_model(encoder, projections=["dense"]), mixed_batch()
    passed = model.run(batch)
    pooled = model.embed(batch)
    assert list(passed.outputs) == list(passed.vectors) == list(LENGTHS)
    for part in batch.parts:
        torch.testing.assert_close(passed.vectors[part.task], pooled[part.sequences])
        torch.testing.assert_close(passed.outputs[part.task], model.head(part.task)(pooled[part.sequences]))
        torch.testing.assert_close(passed.outputs[part.task], model(batch)[part.task])


def test_noise_moves_the_outputs(encoder: Path) -> None:
    model, batch = tiny_model(encoder), mixed_batch()
    still = model.run(batch, torch.zeros(batch.n_tokens, 16))
    assert all(torch.equal(outputs, model(batch)[task]) for task, outputs in still.outputs.items())
    moved = model.run(batch, torch.ones(batch.n_tokens, 16))
    assert not any(torch.allclose(outputs, still.outputs[task]) for task, outputs in moved.outputs.items())


def test_token_states_are_the_last_layers_whichever_is_pooled(encoder: Path) -> None:
    batch = mixed_batch()
    expected = tiny_model(encoder).token_states(batch)
    assert expected.shape == (batch.n_tokens, 16)
    found = tiny_model(encoder, layer=-2, pooling="attention")
    torch.testing.assert_close(found.token_states(batch), expected)
    found.autocast = torch.bfloat16
    assert found.token_states(batch).dtype == torch.float32
    assert found.word_embeddings().shape[1] == 16


def test_projections_stand_between_pooling_and_heads(encoder: Path) -> None:
    batch = mixed_batch()
    plain = tiny_model(encoder)
    model = tiny_model(encoder, projections=["dense", {"kind": "mlp", "width": 7, "activation": "gelu"}])
    torch.testing.assert_close(model.embed(batch), model.projections(plain.embed(batch)))
    assert all(model.task_of(name) is None for name, _ in model.projections.named_parameters("projections"))


@pytest.mark.parametrize(
    ("activation", "function"),
    [("tanh", torch.tanh), ("relu", torch.relu), ("gelu", nn.functional.gelu), ("none", lambda found: found)],
)
def test_a_projection_is_dense_and_activation(activation: Any, function: Any) -> None:
    vectors = random(4, 6)
    dense = projections.build_dense(DenseProjection(activation=activation), 6)
    torch.testing.assert_close(dense(vectors), function(dense.get_submodule("0")(vectors)))
    mlp = projections.build_mlp(MlpProjection(activation=activation, width=9), 6)
    first, second = mlp.get_submodule("1"), mlp.get_submodule("3")
    torch.testing.assert_close(mlp(vectors), second(function(first(vectors))))
    assert [parameter.shape for parameter in mlp.parameters()] == [(9, 6), (9,), (6, 9), (6,)]
    assert projections.build_mlp(MlpProjection(), 6)(vectors).shape == (4, 6)


def test_projection_dropout_acts_in_training_only() -> None:
    mlp = projections.build_mlp(MlpProjection(dropout=0.5), 50)
    vectors = random(4, 50)
    assert not torch.equal(mlp(vectors), mlp(vectors))
    mlp.eval()
    assert torch.equal(mlp(vectors), mlp(vectors))


def test_the_weights_of_a_part_do_not_depend_on_the_other_parts(encoder: Path) -> None:
    whole = tiny_model(
        encoder, projections=["mlp"], pooling="conv", experts={"kind": "low_rank", "rank": 2}
    ).state_dict()
    part = tiny_model(encoder, ["questions"]).state_dict()
    assert len(part) > 30
    assert all(torch.equal(whole[name], tensor) for name, tensor in part.items())
    again = tiny_model(
        encoder, projections=["mlp"], pooling="conv", experts={"kind": "low_rank", "rank": 2}
    ).state_dict()
    assert all(torch.equal(whole[name], tensor) for name, tensor in again.items())
    other = tiny_loaded(encoder, projections=["mlp"])
    config = read_config(encoder, dropout=0.0, attention_dropout=None)
    reseeded = build_model(other.recipe.with_changes(seed=99), other.tables, config, encoder).state_dict()
    assert not torch.equal(whole["projections.0.1.weight"], reseeded["projections.0.1.weight"])


def test_every_parameter_tells_its_task(encoder: Path) -> None:
    model = tiny_model(encoder, experts={"kind": "pal_parallel", "width": 4, "heads": 2}, projections=["dense"])
    names = [name for name, _ in model.named_parameters()]
    for name in names:
        part, _, rest = name.partition(".")
        expected = rest.partition(".")[0].removeprefix("task_") if part in ("experts", "heads") else None
        assert model.task_of(name) == expected
    assert {model.task_of(name) for name in names} == {None, *LENGTHS}


# Counts without weights.


def loaded_with(**options: Any) -> LoadedRecipe:
    recipe = tiny_recipe(Path("nowhere"))
    recipe["encoder"] |= options
    for task in recipe["tasks"].values():
        task |= {"head": "cosine", "loss": "bce", "labels": ["no", "yes"], "kind": "classification"}
        task |= {"text": ["one", "two"], "target": "label", "pairing": "siamese"}
        task.pop("range", None)
    return load_recipe(recipe)


def counts(**options: Any) -> dict[str, Any]:
    loaded = loaded_with(**options)
    return {**parameter_counts(loaded.recipe, loaded.tables, BertConfig())}


def test_bert_base_has_its_published_number_of_parameters() -> None:
    with torch.device("meta"):
        published = sum(parameter.numel() for parameter in BertModel(BertConfig()).parameters())
    assert published == 109_482_240
    none = dict.fromkeys(LENGTHS, 0)
    assert counts(pooling="pooler") == {
        "total": published,
        "trainable": published,
        "per_task": none,
        "shared": published,
    }
    assert counts(pooling="cls")["total"] == published - 768 * 769


def test_low_rank_experts_of_bert_base_have_their_published_number() -> None:
    found = counts(pooling="pooler", experts={"kind": "low_rank", "rank": 256})
    assert found["trainable"] == 84_934_656 + 768 * 769  # the pooler trains too
    assert found["per_task"] == dict.fromkeys(LENGTHS, 28_311_552)
    assert counts(experts="low_rank")["trainable"] == sum(found["per_task"].values()) == 84_934_656
    assert counts(experts={"kind": "low_rank", "freeze": False})["trainable"] == 84_934_656 + 108_891_648


def test_copies_of_bert_base_are_three_of_it() -> None:
    found = counts(pooling="pooler", experts="copies")
    assert found["total"] == found["trainable"] == 328_446_720
    assert found["shared"] == 0


def test_pals_of_bert_base() -> None:
    """D = 768, d = 204: down and up once a task, in parallel q, k and v in each of 12 layers, on top in one."""
    down_up, qkv = 2 * 768 * 204 + 204 + 768, 3 * (204 * 204 + 204)
    assert counts(experts="pal_parallel")["per_task"]["reviews"] == down_up + 12 * qkv
    assert counts(experts="pal_top")["per_task"]["reviews"] == down_up + qkv
    closed = qkv + 204 * 204 + 204 + 2 * 204
    assert counts(experts={"kind": "pal_top", "variant": "stickland"})["per_task"]["reviews"] == down_up + 6 * closed


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pooling": "conv", "projections": ["mlp"], "sandwich_norm": True},
        {"experts": {"kind": "low_rank", "rank": 3}},
        {"experts": "copies", "projections": ["dense"]},
        {"experts": "pal_top"},
    ],
)
def test_counts_are_those_of_the_model_that_is_built(encoder: Path, options: dict[str, Any]) -> None:
    loaded = tiny_loaded(encoder, **options)
    config = read_config(encoder, dropout=0.1, attention_dropout=None)
    found = parameter_counts(loaded.recipe, loaded.tables, config)
    model = tiny_model(encoder, **options)
    assert found["total"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["trainable"] == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert found["shared"] + sum(found["per_task"].values()) == found["total"]


def test_frozen_patterns_do_not_count_as_trainable(encoder: Path) -> None:
    loaded = tiny_loaded(encoder)
    config = read_config(encoder, dropout=0.1, attention_dropout=None)
    found = parameter_counts(loaded.recipe, loaded.tables, config, ["encoder.*", "heads.task_reviews.*.bias"])
    assert found["trainable"] == sum(found["per_task"].values()) - 5
    assert found["total"] > found["trainable"] > 0


# Thresholds.


def with_threshold(encoder: Path) -> Any:
    recipe = tiny_recipe(encoder)
    recipe["tasks"]["questions"]["loss"] = {"kind": "bce", "threshold": "fitted"}
    loaded = load_recipe(recipe)
    config = read_config(encoder, dropout=0.0, attention_dropout=None)
    return build_model(loaded.recipe, loaded.tables, config, encoder)


def test_a_threshold_belongs_to_tasks_whose_loss_fits_one_and_is_saved(encoder: Path, tmp_path: Path) -> None:
    model = with_threshold(encoder)
    threshold = model.threshold("questions")
    assert threshold.shape == ()
    assert threshold.dtype == torch.float32
    assert float(threshold) == 0
    assert model.threshold("reviews") is None
    assert "thresholds.task_questions" not in dict(model.named_parameters())
    model.set_threshold("questions", 0.75)
    save_weights(model, tmp_path / "weights")
    other = with_threshold(encoder)
    load_weights(other, tmp_path / "weights")
    assert float(other.threshold("questions")) == 0.75
    with pytest.raises(AttributeError):
        model.set_threshold("reviews", 1.0)
