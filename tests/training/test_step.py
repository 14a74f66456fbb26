"""What an update leaves alone, and gradients of several tasks beside penalties of other weights."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from manyhead.build import new_model, plan_stages, read_parts
from manyhead.recipe.load import load_recipe
from manyhead.regularisers.smart import SmartPenalty
from manyhead.training.observer import Observer
from manyhead.training.stage_plan import StagePlan
from manyhead.training.step import take_step
from manyhead.training.task_gradients import TaskGradients
from tiny import tiny_encoder, tiny_recipe


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def plan_of(encoder: Path, keys: Mapping[str, Any], **stage: Any) -> StagePlan:
    recipe = tiny_recipe(encoder, **stage)
    recipe["encoder"] |= keys
    recipe["tasks"]["reviews"]["head"] = {"kind": "linear", "dropout": 0.0}
    recipe["tasks"]["questions"]["head"] = {"kind": "hidden", "dropout": 0.0}
    parts = read_parts(load_recipe(recipe), Observer())
    return plan_stages(parts, new_model(parts))[0]


def weights(plan: StagePlan) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in plan.learner.lesson.model.named_parameters()}


def test_copies_of_tasks_that_a_step_lacks_are_left_alone(encoder: Path) -> None:
    plan = plan_of(encoder, {"experts": "copies"}, schedule="sequential")
    model = plan.learner.lesson.model
    trained: set[str] = set()
    for index in range(plan.schedule.epoch_steps):
        before, step = weights(plan), plan.schedule.step(index)
        take_step(plan.learner, step)
        changed = {name for name, each in weights(plan).items() if not torch.equal(each, before[name])}
        assert {model.task_of(name) for name in changed} == {part.task for part in step.parts}
        trained |= changed
    assert sum("word_embeddings" in name for name in trained) == 3


def test_nothing_moves_in_a_step_without_anything_to_learn(encoder: Path) -> None:
    plan = plan_of(encoder, {}, schedule="sequential", pretraining="simcse_pairs", clip_norm=None)
    learned = [plan.schedule.step(index) for index in range(plan.schedule.epoch_steps)]
    with_pairs = next(step for step in learned if step.parts[0].task == "sentences")
    without = next(step for step in learned if step.parts[0].task == "reviews")
    first = weights(plan)
    take_step(plan.learner, with_pairs)
    before = weights(plan)
    assert any(not torch.equal(each, first[name]) for name, each in before.items())
    take_step(plan.learner, without)
    assert all(torch.equal(each, before[name]) for name, each in weights(plan).items())


def test_a_pass_of_averaged_weights_has_no_part_in_the_tasks_gradients(encoder: Path) -> None:
    found: list[dict[str, Tensor]] = []
    for together in (True, False):
        smart = {"kind": "smart", "weight": 0.0, "bregman": 1.0}
        plan = plan_of(encoder, {"dropout": 0.0}, balancing="pcgrad", regularisers=[smart], clip_norm=None)
        learner, gradients = plan.learner, plan.learner.gradients
        (penalty,) = learner.lesson.regularisers
        assert isinstance(gradients, TaskGradients)
        assert isinstance(penalty, SmartPenalty)
        assert penalty.average is not None
        generator = torch.Generator().manual_seed(5)
        for average in penalty.average.buffers():
            average.add_(torch.randn(average.shape, generator=generator), alpha=0.05)
        gradients = TaskGradients(gradients.balancer, gradients.model, gradients.clipping, together=together)
        take_step(replace(learner, gradients=gradients), plan.schedule.step(0))
        assert (gradients.split is not None) == together
        named = learner.lesson.model.named_parameters()
        found.append({name: each.grad.clone() for name, each in named if each.grad is not None})
    assert found[0].keys() == found[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in found[1].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-5 * largest)
