"""The model as a whole: passes, thresholds, projections, names and seeds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from manyhead.encoder import DenseProjection, MlpProjection, projections
from manyhead.encoder.load import read_config
from manyhead.model import build_model, load_weights, save_weights
from manyhead.recipe.load import load_recipe
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
