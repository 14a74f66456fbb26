"""Masked language modelling hides what BERT hides, and equals transformers' model with the same weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from text_data import TOKENIZER, Recorder, all_rows, data_of, facts_of, model_of, recipe_of, some_texts
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AlbertConfig, AlbertForMaskedLM, AutoModel, BertConfig, BertForMaskedLM, PreTrainedModel

from manyhead.data.task_data import TaskData
from manyhead.errors import UsageError
from manyhead.model import MultiTaskModel
from manyhead.pretraining import MaskedLanguageModel, mlm
from manyhead.pretraining.mlm import MaskedLanguageModelling
from manyhead.recipe.schema import Recipe
from tiny import tiny_encoder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return recipe_of(tiny_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture
def model(recipe: Recipe) -> MultiTaskModel:
    return model_of(Path(recipe.encoder.checkpoint), recipe).eval()


@pytest.fixture(scope="module")
def data(recipe: Recipe) -> dict[str, TaskData]:
    texts = some_texts(24)
    pairs = list(zip(texts[:8], texts[8:16], strict=True))
    return {
        "mood": data_of(recipe.tasks["mood"], [(text,) for text in texts[16:]], [0] * 8),
        "same": data_of(recipe.tasks["same"], pairs, [0] * 8),
        "joined": data_of(recipe.tasks["joined"], pairs[:5], [0] * 5),
    }


def learner(recipe: Recipe, model: MultiTaskModel, probability: float = 0.15) -> MaskedLanguageModelling:
    torch.manual_seed(1)
    built = mlm.build(MaskedLanguageModel(probability=probability), facts_of(recipe), model)
    assert isinstance(built, MaskedLanguageModelling)
    return built


def reference_losses(
    reference: PreTrainedModel, recorder: Recorder, original: Tensor, places: Tensor
) -> dict[str, Tensor]:
    """What a masked language model of transformers says of the recorded batch, padded, a task at a time."""
    (batch,) = recorder.batches
    labels = torch.full_like(original, -100)
    labels[places] = original[places]
    found: dict[str, Tensor] = {}
    for part, route in zip(batch.parts, batch.routes, strict=True):
        lengths = list(batch.lengths[part.start : part.stop])

        def padded(values: Tensor, fill: int, own: slice, lengths: list[int]) -> Tensor:
            rows = list(values[own].split(lengths))
            return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)

        own = slice(route.start, route.stop)
        found[part.task] = reference(
            input_ids=padded(batch.input_ids, 0, own, lengths),
            token_type_ids=padded(batch.segment_ids, 0, own, lengths),
            attention_mask=padded(torch.ones_like(batch.input_ids), 0, own, lengths),
            labels=padded(labels, -100, own, lengths),
        ).loss
    return found


def test_equals_transformers_with_the_same_weights(
    recipe: Recipe, model: MultiTaskModel, data: dict[str, TaskData]
) -> None:
    pretraining = learner(recipe, model, 0.3)
    with torch.no_grad():
        for parameter in pretraining.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    reference = BertForMaskedLM(BertConfig.from_pretrained(recipe.encoder.checkpoint)).eval()
    reference.bert.load_state_dict(model.encoder.get_submodule("model").state_dict())
    reference.tie_weights()
    head: Any = reference.cls.predictions
    head.transform.dense.load_state_dict(pretraining.dense.state_dict())
    head.transform.LayerNorm.load_state_dict(pretraining.norm.state_dict())
    head.bias.data.copy_(pretraining.bias.data)
    recorder = Recorder(model)
    seen: list[tuple[Tensor, Tensor]] = []
    hide = pretraining.hide
    pretraining.hide = lambda ids: seen.append((ids, (found := hide(ids))[1])) or found
    found = pretraining.losses(recorder, all_rows(data), data, segment_ids=True)
    expected = reference_losses(reference, recorder, *seen[0])
    assert found.keys() == expected.keys() == data.keys()
    for task, loss in expected.items():
        torch.testing.assert_close(found[task], loss, rtol=1e-5, atol=1e-5)
    torch.stack(list(found.values())).sum().backward()
    torch.stack(list(expected.values())).sum().backward()
    words = model.word_embeddings().grad
    assert words is not None
    torch.testing.assert_close(words, reference.get_input_embeddings().weight.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(pretraining.dense.weight.grad, head.transform.dense.weight.grad, rtol=1e-4, atol=1e-6)


def test_embeddings_of_another_width_are_tied_as_well(tmp_path: Path, data: dict[str, TaskData]) -> None:
    folder = tiny_encoder(tmp_path / "encoder")
    config = AlbertConfig(
        vocab_size=TOKENIZER.get_vocab_size(),
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        hidden_act="gelu",
    )
    AutoModel.from_config(config).save_pretrained(folder)
    recipe = recipe_of(folder)
    model = model_of(folder, recipe).eval()
    pretraining = learner(recipe, model, 0.3)
    reference = AlbertForMaskedLM(config)
    head: Any = reference.predictions
    head.dense.load_state_dict(pretraining.dense.state_dict())
    head.LayerNorm.load_state_dict(pretraining.norm.state_dict())
    head.bias.data.copy_(pretraining.bias.data)
    words = model.word_embeddings()
    reference.albert.embeddings.word_embeddings.weight.data.copy_(words.data)
    reference.tie_weights()
    states = torch.randn(5, 16)
    torch.testing.assert_close(pretraining.logits(states, words), head(states))
    loss = pretraining.losses(model, all_rows(data), data, segment_ids=True)["same"]
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert words.grad is not None


def test_what_is_hidden(recipe: Recipe, model: MultiTaskModel) -> None:
    pretraining = learner(recipe, model)
    torch.manual_seed(0)
    ids = torch.randint(TOKENIZER.get_vocab_size(), (200_000,))
    hidden, places = pretraining.hide(ids)
    special = torch.isin(ids, torch.arange(5))
    assert bool((places.diff() > 0).all())
    assert not bool(special[places].any())
    left = torch.ones_like(special)
    left[places] = False
    assert torch.equal(hidden[left], ids[left])
    assert len(places) / int((~special).sum()) == pytest.approx(0.15, abs=0.005)
    before, after = ids[places], hidden[places]
    masked, kept = after == 4, after == before
    assert float(masked.float().mean()) == pytest.approx(0.8, abs=0.01)
    assert float(kept.float().mean()) == pytest.approx(0.1, abs=0.01)
    others = after[~masked & ~kept]
    assert len(others.unique()) > 0.95 * TOKENIZER.get_vocab_size()
    torch.manual_seed(0)
    again = torch.randint(TOKENIZER.get_vocab_size(), (200_000,))
    assert torch.equal(pretraining.hide(again)[0], hidden)
    assert not torch.equal(pretraining.hide(again)[0], hidden)


def test_only_guessed_tokens_are_decoded(recipe: Recipe, model: MultiTaskModel, data: dict[str, TaskData]) -> None:
    pretraining = learner(recipe, model)
    rows: list[int] = []
    pretraining.dense.register_forward_hook(lambda _module, inputs, _output: rows.append(len(inputs[0])))
    recorder = Recorder(model)
    pretraining.losses(recorder, all_rows(data), data, segment_ids=True)
    assert 0 < rows[0] < 0.3 * recorder.batches[0].n_tokens


def test_a_task_without_guessed_tokens_gives_zero(
    recipe: Recipe, model: MultiTaskModel, data: dict[str, TaskData]
) -> None:
    nothing = {"mood": data_of(recipe.tasks["mood"], [("",), ("",)], [0, 0])}
    both = {**data, **nothing}
    found = learner(recipe, model, 1.0).losses(model, all_rows(both), both, segment_ids=True)
    assert found["mood"].item() == 0
    assert found["same"].item() > 0
    found = learner(recipe, model).losses(model, all_rows(nothing), nothing, segment_ids=True)
    assert found["mood"].item() == 0
    found["mood"].backward()


def test_segments_follow_the_recipe(recipe: Recipe, model: MultiTaskModel, data: dict[str, TaskData]) -> None:
    joined = {"joined": data["joined"]}
    recorder = Recorder(model)
    for segment_ids in (True, False):
        learner(recipe, model).losses(recorder, all_rows(joined), joined, segment_ids=segment_ids)
    assert bool(recorder.batches[0].segment_ids.any())
    assert not bool(recorder.batches[1].segment_ids.any())


def test_sparse_gradients_of_the_embeddings_add_up(
    recipe: Recipe, model: MultiTaskModel, data: dict[str, TaskData]
) -> None:
    gradients: list[Tensor] = []
    words = model.word_embeddings()
    for sparse in (False, True):
        model.encoder.sparse_embedding_gradients(sparse)
        for start in (None, torch.zeros_like(words)):
            words.grad = start
            pretraining = learner(recipe, model)
            torch.manual_seed(2)
            found = pretraining.losses(model, all_rows(data), data, segment_ids=True)
            torch.stack(list(found.values())).sum().backward()
            assert words.grad is not None
            gradients.append(words.grad.to_dense().clone())
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])
    assert bool(gradients[0].any(1).all())


def test_a_tokenizer_without_a_mask_token_is_refused(recipe: Recipe, model: MultiTaskModel) -> None:
    plain = Tokenizer.from_str(TOKENIZER.to_str().replace("[MASK]", "[HIDE]"))
    with pytest.raises(UsageError, match="no mask token"):
        mlm.build(MaskedLanguageModel(), facts_of(recipe, plain), model)
