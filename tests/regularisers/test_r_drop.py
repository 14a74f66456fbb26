"""R-Drop against its formula, and L1 against autograd."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from passes import TASKS, World, gradients, new_regulariser
from torch import Tensor, nn

from manyhead.objectives.base import Piece


def literal(task: str, first: Tensor, second: Tensor, targets: Tensor, alpha: float) -> Tensor:
    """Half of L_1 + L_2 + alpha / 2 * (KL + KL), in torch's words."""
    if task == "sentences":
        losses = (5 * first[:, 0] - targets) ** 2 + (5 * second[:, 0] - targets) ** 2
        return (losses + alpha / 2 * (5 * first[:, 0] - 5 * second[:, 0]) ** 2) / 2
    if task == "questions":  # one logit z is the two logits 0 and z
        first, second = (torch.cat([torch.zeros_like(each), each], 1) for each in (first, second))
    p, q = first.log_softmax(1), second.log_softmax(1)
    both = F.kl_div(p, q, log_target=True, reduction="none") + F.kl_div(q, p, log_target=True, reduction="none")
    losses = F.cross_entropy(first, targets, reduction="none") + F.cross_entropy(second, targets, reduction="none")
    return (losses + alpha / 2 * both.sum(1)) / 2


@pytest.mark.parametrize("alpha", [0.0, 1.0, 4.0])
def test_with_the_steps_own_losses_it_is_half_the_papers(dropping: World, alpha: float) -> None:
    torch.manual_seed(1)
    done = dropping.done()
    torch.manual_seed(2)
    penalties = new_regulariser(dropping, "r_drop", alpha=alpha).penalties(done)
    torch.manual_seed(2)
    second = dropping.model.run(done.batch).outputs
    expected = {
        task: literal(task, done.pieces[task].outputs, second[task], done.pieces[task].targets, alpha) for task in TASKS
    }
    found = {task: done.losses[task] + penalties[task] for task in TASKS}
    for task in TASKS:
        assert not torch.equal(found[task], done.losses[task])
        torch.testing.assert_close(found[task], expected[task])
    torch.cat(list(expected.values())).sum().backward(retain_graph=True)
    right = {name: each.grad.clone() for name, each in dropping.model.named_parameters() if each.grad is not None}
    slopes = gradients(dropping, found)
    assert set(slopes) == set(right)
    for name, slope in slopes.items():
        torch.testing.assert_close(slope, right[name], rtol=1e-4, atol=1e-5)


def test_without_dropout_it_asks_for_nothing(world: World) -> None:
    penalties = new_regulariser(world, "r_drop").penalties(world.done())
    assert set(penalties) == set(TASKS)
    assert all(bool((each == 0).all()) for each in penalties.values())


def test_only_the_named_tasks_are_penalised(dropping: World) -> None:
    drop = new_regulariser(dropping, "r_drop", only=["sentences", "reviews"])
    assert set(drop.penalties(dropping.done())) == {"sentences", "reviews"}
    assert drop.penalties(dropping.done(tasks=("questions",))) == {}


def test_all_of_a_tasks_losses_are_those_of_both_passes(dropping: World) -> None:
    """Auxiliary losses and teachers count in the second pass as they do in the first."""

    def blended(task: str, piece: Piece) -> Tensor:
        return 0.25 * dropping.losses(task, piece) + piece.vectors.square().mean((1, 2))

    done = dropping.done()
    done = replace(done, losses={t: blended(t, piece) for t, piece in done.pieces.items()}, losses_of=blended)
    torch.manual_seed(3)
    penalties = new_regulariser(dropping, "r_drop", alpha=0.0).penalties(done)
    torch.manual_seed(3)
    second = dropping.model.run(done.batch)
    for task in TASKS:
        again = Piece(second.outputs[task], second.vectors[task], done.pieces[task].targets)
        torch.testing.assert_close(done.losses[task] + penalties[task], (done.losses[task] + blended(task, again)) / 2)


def test_l1_is_the_gradient_of_the_sum_of_absolute_weights(world: World) -> None:
    model = world.model
    embeddings = {
        id(each) for module in model.modules() if isinstance(module, nn.Embedding) for each in module.parameters()
    }
    done = world.done(tasks=("reviews",))
    before = gradients(world, done.losses)
    matrices = {
        name: each
        for name, each in model.named_parameters()
        if name in before and each.ndim == 2 and id(each) not in embeddings
    }
    assert len(matrices) > 10
    assert any("heads" in name for name in matrices)
    assert len(before) > len(matrices)
    total = torch.stack([each.abs().sum() for each in matrices.values()]).sum() * 0.01
    added = dict(zip(matrices, torch.autograd.grad(total, list(matrices.values())), strict=True))
    new_regulariser(world, "l1", weight=0.01).adjust(model)
    for name, parameter in model.named_parameters():
        if name not in before:
            assert parameter.grad is None
        else:
            assert parameter.grad is not None
            expected = before[name] + added[name] if name in added else before[name]
            torch.testing.assert_close(parameter.grad.to_dense(), expected)
    assert new_regulariser(world, "l1", weight=0.01).penalties(done) == {}
