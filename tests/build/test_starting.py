"""Starting from a model of ours: what fits is taken, what does not is new, and what cannot be is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from manyhead.build.starting import take_weights
from manyhead.encoder.tokenizer import load_tokenizer
from manyhead.errors import UsageError
from manyhead.inference.model_folder import StoredModel
from manyhead.model import MultiTaskModel
from mixed import LENGTHS, perturb, tiny_loaded, tiny_model
from tiny import tiny_encoder

LOW_RANK = {"kind": "low_rank", "rank": 4}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("starting") / "encoder")


def stored(encoder: Path, *tasks: str, **options: Any) -> StoredModel:
    """A model of which every weight differs from those of a new one."""
    names = tasks or tuple(LENGTHS)
    loaded, model = tiny_loaded(encoder, names, **options), tiny_model(encoder, names, **options)
    perturb(model, seed=1)
    return StoredModel(model.eval(), loaded.recipe, loaded.tables, load_tokenizer(encoder), encoder)


def started(encoder: Path, source: StoredModel, *tasks: str, **options: Any) -> MultiTaskModel:
    names = tasks or tuple(LENGTHS)
    model = tiny_model(encoder, names, **options)
    take_weights(model, tiny_loaded(encoder, names, **options).recipe, source)
    return model


def taken(model: MultiTaskModel, source: StoredModel) -> set[str]:
    """Names of the parameters that are those of the stored model."""
    theirs = source.model.state_dict()
    return {name for name, own in model.state_dict().items() if name in theirs and torch.equal(own, theirs[name])}


def test_an_equal_recipe_takes_everything(encoder: Path) -> None:
    options: dict[str, Any] = {"experts": LOW_RANK, "projections": ["dense"], "pooling": "pooler"}
    source = stored(encoder, **options)
    assert taken(started(encoder, source, **options), source) == set(source.model.state_dict())
    copies = stored(encoder, experts="copies", pooling="pooler")
    assert taken(started(encoder, copies, experts="copies", pooling="pooler"), copies) == set(copies.model.state_dict())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"experts": LOW_RANK}, {}),
        ({}, {"experts": LOW_RANK}),
        ({"experts": LOW_RANK}, {"experts": {"kind": "low_rank", "rank": 8}}),
        ({"experts": {"kind": "pal_top"}}, {"experts": LOW_RANK}),
    ],
)
def test_of_other_experts_the_shared_encoder_is_taken(
    encoder: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    source = stored(encoder, **before)
    model = started(encoder, source, **after)
    names = {name for name in model.state_dict() if name.partition(".")[0] in ("encoder", "heads")}
    assert taken(model, source) == names


def test_poolings_and_projections_that_differ_stay_new(encoder: Path) -> None:
    source = stored(encoder, pooling="pooler", projections=["dense"])
    model = started(encoder, source, pooling="conv", projections=["mlp"])
    assert not [name for name in taken(model, source) if name.startswith(("pooling", "projections"))]
    new = tiny_model(encoder, pooling="conv", projections=["mlp"]).state_dict()
    own = [name for name in new if name.startswith(("pooling", "projections"))]
    assert len(own) > 8
    assert all(torch.equal(model.state_dict()[name], new[name]) for name in own)


def test_experts_are_taken_task_by_task(encoder: Path) -> None:
    source = stored(encoder, "reviews", "questions", experts=LOW_RANK)
    found = taken(started(encoder, source, "questions", "sentences", experts=LOW_RANK), source)
    assert {name.split(".")[1] for name in found if name.startswith("experts")} == {"task_questions"}


def test_copies_start_from_a_shared_encoder_or_from_their_own(encoder: Path) -> None:
    plain = stored(encoder, pooling="pooler")
    model = started(encoder, plain, experts="copies", pooling="pooler")
    theirs = plain.model.state_dict()
    for name, own in model.state_dict().items():
        if name.startswith(("encoder.", "pooling.")):
            part, _, rest = name.replace("copies.", "").partition(".")
            assert torch.equal(own, theirs[f"{part}.{rest.partition('.')[2]}"]), name
    copies = stored(encoder, experts="copies")
    fewer = started(encoder, copies, "sentences", experts="copies")
    assert {name for name in fewer.state_dict() if name.startswith("encoder")} <= taken(fewer, copies)


def test_what_copies_cannot_start_is_refused(encoder: Path) -> None:
    copies = stored(encoder, "reviews", "questions", experts="copies")
    with pytest.raises(UsageError, match=r"one encoder for each task, and none for all.*experts: copies"):
        started(encoder, copies)
    with pytest.raises(UsageError, match=r"none for sentences; expected tasks among reviews, questions"):
        started(encoder, copies, experts="copies")


def test_a_threshold_comes_with_its_head(encoder: Path) -> None:
    source = stored(encoder)
    model = tiny_model(encoder)
    for each, value in ((source.model, 0.5), (model, 0.0)):
        each.thresholds.register_buffer("task_questions", torch.tensor(value))
    take_weights(model, source.recipe, source)
    assert float(model.thresholds.get_buffer("task_questions")) == 0.5
