"""Gradients of mini-batches against autograd, what copies of a task and an opposite one give, and what is refused."""

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manyhead.build import new_model, plan_stages, read_parts
from manyhead.errors import DataError, RecipeError, UsageError
from manyhead.recipe.load import load_recipe
from manyhead.schedules.base import Part
from manyhead.studies.affinity.affinity import Affinity, affinity_of, loss_constants, step_norms, task_affinity
from manyhead.studies.affinity.gradients import Gradients, Sizes, batch_gradients, measure_gradients, shared_layers
from manyhead.studies.affinity.sketch import WIDTH, Sketch
from manyhead.training.losses import Lesson
from manyhead.training.observer import Observer
from tiny import SAMPLE, tiny_recipe

SMALL = Sizes(examples=16, batch_size=2, warmup_steps=2)
LAYERS = ("embeddings", "layer 1", "layer 2")


def lesson_of(recipe: Mapping[str, Any]) -> Lesson:
    parts = read_parts(load_recipe(dict(recipe)), Observer())
    return plan_stages(parts, new_model(parts))[0].learner.lesson


def copies_of_questions(encoder: Path, folder: Path, **flipped: bool) -> dict[str, Any]:
    """Tasks that read questions of the sample, most of them the same, some tasks with labels flipped.

    Their heads have no weights.
    """
    recipe = tiny_recipe(encoder)
    with (SAMPLE / "questions.train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [row for number, row in enumerate(rows) if row["same"] == "1" or number % 4 == 0]
    tasks: dict[str, Any] = {}
    for name, flips in flipped.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows({**row, "same": 1 - int(row["same"]) if flips else row["same"]} for row in rows)
        head = {"pairing": "siamese", "head": "cosine", "loss": "cosine_embedding", "limit": {}}
        tasks[name] = recipe["tasks"]["questions"] | head | {"files": {"train": str(folder / f"{name}.csv")}}
    return recipe | {"tasks": tasks}


def affinity(recipe: Mapping[str, Any], sizes: Sizes) -> Affinity:
    return task_affinity(load_recipe(dict(recipe)), sizes)


def test_products_are_those_of_autograds_gradients_layer_by_layer(encoder: Path) -> None:
    lesson = lesson_of(tiny_recipe(encoder))
    rows = {"reviews": np.arange(12), "questions": np.arange(8), "sentences": np.arange(3, 15)}
    found = batch_gradients(lesson, rows, 4, step_sizes={}, seed=0)
    assert found.layers == LAYERS
    assert found.owners.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    model = lesson.model.eval()
    layers = shared_layers(model)
    named = {id(parameter) for parameters in layers.values() for parameter in parameters}
    assert named == {id(each) for name, each in model.named_parameters() if model.task_of(name) is None}
    for number, (name, parameters) in enumerate(layers.items()):
        gradients: list[torch.Tensor] = []
        for task, own in rows.items():
            for batch in own.reshape(-1, 4):
                loss = lesson.losses([Part(task, batch)], {task: 4})[task]
                slopes = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
                gradients.append(torch.cat([each.to_dense().flatten() for each in slopes]))
        flat = torch.stack(gradients).double()
        expected = (flat @ flat.t()).numpy()
        np.testing.assert_allclose(
            found.products[number], expected, rtol=1e-4, atol=1e-6 * expected.max(), err_msg=name
        )


def test_dropout_is_off_and_nothing_is_left_behind(encoder: Path) -> None:
    lesson = lesson_of(tiny_recipe(encoder))
    rows = {"reviews": np.arange(8), "questions": np.arange(8)}
    before = {name: each.clone() for name, each in lesson.model.state_dict().items()}
    one, two = (batch_gradients(lesson, rows, 4, step_sizes={}, seed=0) for _ in range(2))
    assert (one.products == two.products).all()
    assert (one.losses == two.losses).all()
    assert all(bool((each == before[name]).all()) for name, each in lesson.model.state_dict().items())


def test_a_longer_gradient_is_projected_and_keeps_its_products() -> None:
    size = 5 * WIDTH + 17
    vectors = torch.randn(2, size, generator=torch.Generator().manual_seed(0))
    vectors[1] += 0.5 * vectors[0]
    exact = torch.nn.functional.cosine_similarity(vectors[0], vectors[1], dim=0)
    found: list[float] = []
    for seed in range(20):
        sketch = Sketch(size, ("test", seed))
        one, two = (sketch(each) for each in vectors)
        assert one.shape == (WIDTH,)
        found.append(float(torch.nn.functional.cosine_similarity(one, two, dim=0) - exact))
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found))
    assert 0.003 < float(np.std(found)) < 0.009
    short = torch.randn(40)
    assert (Sketch(40, ("test",))(short) == short).all()


def test_a_heavy_column_of_a_matrix_is_spread() -> None:
    """Few inputs of a layer are much larger than the others: their columns must not fall on one another."""
    matrix = torch.zeros(1536, 384)
    matrix[:, 7] = torch.randn(1536, generator=torch.Generator().manual_seed(1))
    lengths = [float(Sketch(matrix.numel(), ("test", seed))(matrix.flatten()).norm()) for seed in range(20)]
    np.testing.assert_allclose(lengths, float(matrix.norm()), rtol=0.06)


def test_copies_of_a_task_agree_and_one_with_flipped_labels_conflicts(encoder: Path, tmp_path: Path) -> None:
    """Without weights of their own in their heads: those could undo the flip."""
    recipe = copies_of_questions(encoder, tmp_path, first=False, second=False, flipped=True)
    found = affinity(recipe, Sizes(examples=96, batch_size=6, warmup_steps=0))
    cosines = found.estimates.cosines
    assert cosines[0, 1] > 0.9
    assert found.estimates.direction(0, 1) == "agree"
    assert cosines[0, 2] < -0.3
    assert found.estimates.direction(0, 2) == found.estimates.direction(1, 2) == "conflict"
    assert set(found.grouping.groups) == {(0, 1), (2,)}
    assert found.grouping.agreement > 0.95
    said = found.as_dict()["suggestion"]
    assert said["text"][0].startswith("Train together: first + second (likely: so say ")
    assert said["text"][1] == "Train apart: flipped."
    assert said["undecided"] == []


def test_a_task_with_a_loss_ten_times_as_large_gets_a_tenth_of_the_constant(encoder: Path) -> None:
    lesson = lesson_of(tiny_recipe(encoder))
    rows = {"reviews": np.arange(16), "questions": np.arange(16)}
    found = batch_gradients(lesson, rows, 4, step_sizes={"reviews": 8, "questions": 8}, seed=0)
    factors = np.where(found.owners == 0, 10.0, 1.0)
    scaled = replace(found, products=found.products * factors[:, None] * factors)
    constants = [affinity_of("x", SMALL, each, resamples=20).constants for each in (found, scaled)]
    assert constants[1][1] / constants[1][0] == pytest.approx(10 * constants[0][1] / constants[0][0])
    assert [each.mean() for each in constants] == pytest.approx([1, 1])


def test_a_steps_norm_is_between_that_of_a_mini_batch_and_of_the_mean() -> None:
    """A batch of 4 mini-batches: the noise in its square is a quarter."""
    generator = np.random.default_rng(0)
    gradients = np.array([3.0, 0, 0, 0]) + generator.standard_normal((1500, 4))
    products = gradients @ gradients.T
    given = Gradients(("a",), ("all",), np.zeros(1500, np.int64), np.zeros(1500), products[None], 8, {"a": 32})
    found = affinity_of("x", SMALL, given, resamples=2)
    assert step_norms(found.estimates, given)[0] == pytest.approx(np.sqrt(9 + 4 / 4), rel=0.02)


def test_constants_of_gradients_that_are_0() -> None:
    np.testing.assert_allclose(loss_constants(np.array([1.0, 0.0, 3.0])), [1.5, np.nan, 0.5])
    assert np.isnan(loss_constants(np.zeros(2))).all()


def test_heads_are_warmed_on_other_rows_and_nothing_else_is(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[int]] = {}
    kept = Lesson.losses

    def losses(self: Lesson, parts: Any, counts: Any) -> Any:
        for part in parts:
            seen.setdefault(f"{part.task}, {'warm-up' if self.model.training else 'measured'}", set()).update(
                part.examples.tolist()
            )
        return kept(self, parts, counts)

    monkeypatch.setattr(Lesson, "losses", losses)
    recipe = tiny_recipe(encoder)
    cold = measure_gradients(load_recipe(recipe), replace(SMALL, warmup_steps=0))
    assert not any("warm-up" in place for place in seen)
    seen.clear()
    warm = measure_gradients(load_recipe(recipe), replace(SMALL, warmup_steps=40))
    for task in recipe["tasks"]:
        assert len(seen[f"{task}, measured"]) == 16
        assert seen[f"{task}, warm-up"]
        assert not seen[f"{task}, measured"] & seen[f"{task}, warm-up"]
    assert [warm.losses[warm.owners == task].mean() < cold.losses[cold.owners == task].mean() for task in (0, 1)]
    assert warm.losses[warm.owners == 2].mean() == pytest.approx(cold.losses[cold.owners == 2].mean())


def test_the_same_recipe_gives_the_same_document(encoder: Path) -> None:
    assert affinity(tiny_recipe(encoder), SMALL).as_dict() == affinity(tiny_recipe(encoder), SMALL).as_dict()


def test_a_stages_own_choices_count(encoder: Path) -> None:
    found = measure_gradients(load_recipe(tiny_recipe(encoder, tasks=["reviews", "sentences"])), SMALL)
    assert found.tasks == ("reviews", "sentences")
    found = measure_gradients(load_recipe(tiny_recipe(encoder, freeze=["*.embeddings.*", "*.layer.0.*"])), SMALL)
    assert found.layers == ("layer 2",)


@pytest.mark.parametrize(
    "changes",
    [
        {"regularisers": ["r_drop"], "accumulation": 2},
        {"balancing": {"kind": "pcgrad", "weights": {"reviews": 3.0}}},
        {"freeze": ["heads.*"], "clip_by": "task"},
    ],
)
def test_what_is_not_the_tasks_is_left_out(changes: dict[str, Any], encoder: Path) -> None:
    """The same gradients as without; all heads stay as new in both."""
    sizes = replace(SMALL, warmup_steps=0)
    plain, other = (measure_gradients(load_recipe(tiny_recipe(encoder, **each)), sizes) for each in ({}, changes))
    np.testing.assert_allclose(other.products, plain.products, rtol=1e-5, atol=1e-7)


def refused(recipe: Mapping[str, Any], sizes: Sizes = SMALL) -> str:
    with pytest.raises((UsageError, RecipeError, DataError)) as raised:
        measure_gradients(load_recipe(dict(recipe)), sizes)
    return str(raised.value)


def test_one_task_is_refused(encoder: Path) -> None:
    assert "only reviews is trained" in refused(tiny_recipe(encoder, tasks=["reviews"]))
    recipe = tiny_recipe(encoder)
    for name in ("questions", "sentences"):
        recipe["tasks"][name]["files"].pop("train")
    assert "no train file: questions, sentences; expected two tasks" in refused(recipe)


def test_pretraining_alone_is_refused(encoder: Path) -> None:
    recipe = tiny_recipe(encoder, pretraining="mlm")
    assert "every stage pretrains on texts" in refused(recipe)
    recipe["stages"].append({"name": "tasks"})
    assert measure_gradients(load_recipe(recipe), SMALL).tasks == ("reviews", "questions", "sentences")


def test_tasks_that_share_nothing_are_refused(encoder: Path) -> None:
    recipe = tiny_recipe(encoder)
    recipe["encoder"]["experts"] = "copies"
    assert "share no parameter that trains" in refused(recipe)
    assert "share no parameter that trains" in refused(tiny_recipe(encoder, freeze=["encoder.*"]))


def test_too_few_rows_are_refused_for_all_tasks_at_once(encoder: Path) -> None:
    said = refused(tiny_recipe(encoder), Sizes(examples=64, batch_size=8))
    assert "reviews: 24 rows give 2 mini-batches of 8; expected 8" in said
    assert "sentences: 24 rows" in said


def test_a_grid_is_refused(encoder: Path) -> None:
    assert "has a grid" in refused(tiny_recipe(encoder) | {"grid": {"stages.0.epochs": [1, 2]}})
