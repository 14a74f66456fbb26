"""Parameters are counted without weights, as they were published and as they are in the model that is built."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from manyhead.build.trainable import stage_parameters
from manyhead.encoder.load import read_config
from manyhead.recipe.load import LoadedRecipe, load_recipe
from mixed import LENGTHS, tiny_loaded, tiny_model
from tiny import tiny_encoder, tiny_recipe


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("model") / "encoder")


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
    found = stage_parameters(loaded.recipe, loaded.tables, BertConfig())
    return {key: found[key] for key in ("total", "trained", "per_task", "shared")}


def test_bert_base_has_its_published_number_of_parameters() -> None:
    with torch.device("meta"):
        published = sum(parameter.numel() for parameter in BertModel(BertConfig()).parameters())
    assert published == 109_482_240
    none = dict.fromkeys(LENGTHS, 0)
    assert counts(pooling="pooler") == {
        "total": published,
        "trained": published,
        "per_task": none,
        "shared": published,
    }
    assert counts(pooling="cls")["total"] == published - 768 * 769


def test_low_rank_experts_of_bert_base_have_their_published_number() -> None:
    found = counts(pooling="pooler", experts={"kind": "low_rank", "rank": 256})
    assert found["trained"] == 84_934_656 + 768 * 769  # the pooler trains too
    assert found["per_task"] == dict.fromkeys(LENGTHS, 28_311_552)
    assert counts(experts="low_rank")["trained"] == sum(found["per_task"].values()) == 84_934_656
    assert counts(experts={"kind": "low_rank", "freeze": False})["trained"] == 84_934_656 + 108_891_648


def test_copies_of_bert_base_are_three_of_it() -> None:
    found = counts(pooling="pooler", experts="copies")
    assert found["total"] == found["trained"] == 328_446_720
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
    found = stage_parameters(loaded.recipe, loaded.tables, config)
    model = tiny_model(encoder, **options)
    assert found["total"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["trained"] == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert found["shared"] + sum(found["per_task"].values()) == found["total"]
