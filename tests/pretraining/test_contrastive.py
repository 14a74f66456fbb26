"""SimCSE equals a literal transcription, and sentence-transformers' ranking loss on pairs."""

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from text_data import TASKS, Recorder, all_rows, data_of, facts_of, model_of, recipe_of, some_texts
from torch import Tensor

from manyhead.batching import pack
from manyhead.data.task_data import TaskData
from manyhead.errors import UsageError
from manyhead.model import MultiTaskModel
from manyhead.packed import PackedBatch
from manyhead.pretraining import PairSimCSE, SimCSE, contrastive
from manyhead.pretraining.base import Pretraining
from manyhead.recipe.schema import Recipe
from manyhead.schedules.base import Part
from tiny import tiny_encoder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return recipe_of(tiny_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture
def model(recipe: Recipe) -> MultiTaskModel:
    return model_of(Path(recipe.encoder.checkpoint), recipe).train()


def rows(recipe: Recipe, **texts: list[tuple[str, ...]]) -> dict[str, TaskData]:
    """Splits whose every second target is the class 1 or the score 4, the others the class 0 or the score 2."""
    found: dict[str, TaskData] = {}
    for name, each in texts.items():
        task = recipe.tasks[name]
        low, high = (2.0, 4.0) if task.kind == "regression" else (0, 1)
        found[name] = data_of(task, each, [low if row % 2 else high for row in range(len(each))])
    return found


def literal(batch: PackedBatch, vectors: Tensor, temperature: float) -> dict[str, float]:
    """Equation 1 of the paper over each part, a pair at a time; a text is no negative of the like."""
    texts = [tuple(sequence.tolist()) for sequence in batch.input_ids.split(list(batch.lengths))]
    found: dict[str, float] = {}
    for part in batch.parts:
        pairs: list[list[int]] = part.sequences.tolist()
        losses: list[float] = []
        for i, (first, second) in enumerate(pairs):
            total, own = 0.0, 0.0
            for j, (_, other) in enumerate(pairs):
                cosine = F.cosine_similarity(vectors[first].double(), vectors[other].double(), dim=0)
                similarity = math.exp(float(cosine) / temperature)
                own = similarity if i == j else own
                total += similarity if i == j or texts[other] not in (texts[first], texts[second]) else 0.0
            losses.append(-math.log(own / total))
        found[part.task] = sum(losses) / len(losses)
    return found


def texts_in(batch: PackedBatch) -> dict[str, list[tuple[int, ...]]]:
    """The texts of each part by its examples, once for each sequence."""
    texts = [tuple(sequence.tolist()) for sequence in batch.input_ids.split(list(batch.lengths))]
    return {part.task: [texts[row] for row in part.sequences.flatten().tolist()] for part in batch.parts}


def unsupervised(recipe: Recipe, model: MultiTaskModel, **options: Any) -> Pretraining:
    torch.manual_seed(1)
    return contrastive.build(SimCSE(**options), facts_of(recipe), model)


@pytest.mark.parametrize("projection", [True, False])
def test_simcse_equals_its_definition(recipe: Recipe, model: MultiTaskModel, projection: bool) -> None:
    one, two, three, four, five, six = some_texts(6)
    data = rows(
        recipe,
        mood=[(one,), (two,), (one,), (three,)],
        same=[(one, two), (two, four)],
        joined=[(five, six), (six, one), (three, four)],
    )
    recorder = Recorder(model)
    pretraining = unsupervised(recipe, model, projection=projection, temperature=0.1)
    found = pretraining.losses(recorder, all_rows(data), data, segment_ids=True)
    (batch,), (vectors,) = recorder.batches, recorder.found
    for task, texts in texts_in(batch).items():
        sequences = [data[task].tokens.sequence(i).tolist() for i in range(len(data[task].tokens.lengths()))]
        assert texts[::2] == texts[1::2]
        if task != "joined":
            assert [list(text) for text in texts[::2]] == sequences
    copies = vectors[batch.parts[0].sequences]
    assert not torch.allclose(copies[:, 0], copies[:, 1])
    if projection:
        state = pretraining.state_dict()
        vectors = (vectors @ state["projection.0.weight"].T + state["projection.0.bias"]).tanh()
    expected = literal(batch, vectors.detach(), 0.1)
    assert {task: loss.item() for task, loss in found.items()} == pytest.approx(expected, rel=1e-4)


def test_joined_pairs_are_read_as_their_texts(recipe: Recipe, model: MultiTaskModel) -> None:
    texts = some_texts(8)
    pairs = list(zip(texts[:4], texts[4:], strict=True))
    data = rows(recipe, same=[*pairs], joined=[*pairs])
    recorder = Recorder(model.eval())
    unsupervised(recipe, model).losses(recorder, all_rows(data), data, segment_ids=True)
    found = texts_in(recorder.batches[0])
    assert found["same"] == found["joined"]


def test_equal_texts_and_single_texts_have_nothing_to_be_told_from(recipe: Recipe, model: MultiTaskModel) -> None:
    data = rows(recipe, mood=[("good film",)] * 5, joined=[("", "")], same=[("slow plot", "")])
    found = unsupervised(recipe, model).losses(model, all_rows(data), data, segment_ids=True)
    assert {task: round(loss.item(), 6) for task, loss in found.items()} == {"mood": 0, "joined": 0, "same": 0}
    torch.stack(list(found.values())).sum().backward()


def test_nothing_but_empty_texts_is_a_loss_of_zero(recipe: Recipe, model: MultiTaskModel) -> None:
    data = rows(recipe, mood=[("",), ("",)])
    recorder = Recorder(model)
    found = unsupervised(recipe, model).losses(recorder, all_rows(data), data, segment_ids=True)
    assert found["mood"].item() == 0
    assert not recorder.batches


def test_gradients_reach_the_encoder_and_the_projection(recipe: Recipe, model: MultiTaskModel) -> None:
    data = rows(recipe, mood=[(text,) for text in some_texts(6)])
    pretraining = unsupervised(recipe, model)
    pretraining.losses(model, all_rows(data), data, segment_ids=True)["mood"].backward()
    trained = [*pretraining.parameters(), *model.encoder.parameters()]
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in trained)
    assert all(parameter.grad is None for parameter in model.heads.parameters())


@pytest.mark.parametrize("task", ["same", "joined", "near"])
def test_pairs_equal_sentence_transformers_on_the_positives(recipe: Recipe, model: MultiTaskModel, task: str) -> None:
    model.eval()
    texts = some_texts(20)
    pairs = list(zip(texts[:10], texts[10:], strict=True))
    data = rows(recipe, **{task: [*pairs]})
    pretraining = contrastive.build_pairs(PairSimCSE(), facts_of(recipe), model)
    part = Part(task, np.array([7, 2, 3, 4, 8, 0]))
    found = pretraining.losses(model, [part], data, segment_ids=True)[task]
    positives = [2, 4, 8, 0]
    columns: list[Tensor] = []
    for which in (0, 1):
        alone = data_of(recipe.tasks["mood"], [(pairs[i][which],) for i in positives], [0] * 4)
        batch = pack([Part("mood", np.arange(4))], {"mood": alone.tokens})
        columns.append(model.embed(batch)[batch.parts[0].sequences[:, 0]])
    reference = MultipleNegativesRankingLoss(cast("Any", None), scale=20.0)
    expected = reference.compute_loss_from_embeddings(columns, torch.empty(0))
    torch.testing.assert_close(found, expected)


def test_repeated_texts_are_no_negatives_of_a_pair(recipe: Recipe, model: MultiTaskModel) -> None:
    one, two, three, four = some_texts(4)
    pairs: list[tuple[str, ...]] = []
    for pair in [(one, two), (three, two), (two, one), (four, three)]:
        pairs += [pair, (four, four)]
    data = rows(recipe, same=pairs)
    recorder = Recorder(model)
    pretraining = contrastive.build_pairs(PairSimCSE(temperature=0.2), facts_of(recipe), model)
    found = pretraining.losses(recorder, all_rows(data), data, segment_ids=True)
    expected = literal(recorder.batches[0], recorder.found[0].detach(), 0.2)
    assert found["same"].item() == pytest.approx(expected["same"], rel=1e-4)


def test_tasks_without_like_pairs_give_zero(recipe: Recipe, model: MultiTaskModel) -> None:
    one, two = some_texts(2)
    data = rows(recipe, mood=[(one,), (two,)], same=[(one, two)], joined=[(one, two), (two, one), (two, two)])
    parts = [*all_rows({name: data[name] for name in ("mood", "same")}), Part("joined", np.array([1]))]
    recorder = Recorder(model)
    pretraining = contrastive.build_pairs(PairSimCSE(), facts_of(recipe), model)
    found = pretraining.losses(recorder, parts, data, segment_ids=True)
    assert {task: loss.item() for task, loss in found.items()} == {"mood": 0, "same": 0, "joined": 0}
    assert list(texts_in(recorder.batches[0])) == ["same"]


@pytest.mark.parametrize(
    ("ends", "share", "positive"),
    [((0, 5), 0.8, [4.0, 4.2, 5.0]), ((1, 5), 0.8, [4.2, 5.0]), ((0, 5), 1.0, [5.0])],
)
def test_scores_from_a_share_of_the_range_on_are_like(
    recipe: Recipe, model: MultiTaskModel, ends: tuple[int, int], share: float, positive: list[float]
) -> None:
    scores = [1.0, 3.99, 4.0, 4.2, 5.0]
    ranged = recipe_of(Path(recipe.encoder.checkpoint), {"near": {**TASKS["near"], "range": list(ends)}})
    texts = some_texts(10)
    data = {"near": data_of(ranged.tasks["near"], list(zip(texts[:5], texts[5:], strict=True)), scores)}
    recorder = Recorder(model)
    options = PairSimCSE(minimum_score=share)
    contrastive.build_pairs(options, facts_of(ranged), model).losses(recorder, all_rows(data), data, segment_ids=True)
    assert recorder.batches[0].parts[0].n_examples == len(positive)


def test_scores_without_a_range_are_refused(recipe: Recipe, model: MultiTaskModel) -> None:
    bare = {"near": {key: value for key, value in TASKS["near"].items() if key != "range"}}
    facts = facts_of(recipe_of(Path(recipe.encoder.checkpoint), bare))
    with pytest.raises(UsageError, match=r"tasks\.near\.range"):
        contrastive.build_pairs(PairSimCSE(), facts, model)
