"""Balancers of losses, against torchjd's scalarisations and slow transcriptions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from signal_makers import NAMES, made, seen, tasks
from torch import Tensor
from torchjd.scalarization import DWA, IMTLL, UW, GeometricMean

from manyhead.balancing.base import Balancer, Signals


def slopes(objective: Tensor, *at: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(objective, at))


def learned(balancer: Balancer) -> list[Tensor]:
    """The balancer's parameters, in the order of tasks."""
    found = {name.rpartition(".task_")[2]: value for name, value in balancer.named_parameters()}
    return [found[name] for name in NAMES[: len(found)]]


def test_sum_weighs_all_alike_and_weighted_puts_constants_first() -> None:
    assert made("sum").constants == {}
    weighted = made("weighted", weights={"two": 4.0})
    assert weighted.constants == {"two": 4.0}
    for balancer in (made("sum"), weighted):
        assert balancer.weights(seen()).tolist() == [1.0, 1.0, 1.0]


def test_gls_follows_the_slope_of_the_geometric_mean() -> None:
    losses = torch.tensor([0.2, 3.0, 1.1], dtype=torch.float64, requires_grad=True)
    (expected,) = slopes(GeometricMean()(losses), losses)
    torch.testing.assert_close(made("gls").weights(seen(losses.detach())), expected.float())


@pytest.mark.parametrize("focus", [["two"], ["one", "three"]])
def test_fls_follows_the_slope_of_gls_times_the_mean_of_those_in_focus(focus: list[str]) -> None:
    losses = torch.tensor([0.2, 3.0, 1.1], dtype=torch.float64, requires_grad=True)
    chosen = torch.stack([loss for name, loss in zip(NAMES, losses, strict=False) if name in focus])
    (expected,) = slopes(losses.prod() ** (1 / 3) * chosen.prod() ** (1 / len(focus)), losses)
    torch.testing.assert_close(made("fls", focus=focus).weights(seen(losses.detach())), expected.float())


def test_fls_without_its_focus_in_the_step_is_gls() -> None:
    signals = seen([0.4, 2.0], names=("one", "three"))
    assert torch.equal(made("fls", focus=["two"]).weights(signals), made("gls").weights(signals))


@settings(deadline=None)
@given(st.lists(st.floats(0, 3e38), min_size=1, max_size=5), st.sampled_from(["gls", "fls"]))
def test_no_loss_makes_a_geometric_weight_infinite(losses: list[float], kind: str) -> None:
    balancer = made(kind, focus=["one"]) if kind == "fls" else made(kind)
    weights = balancer.weights(seen(torch.tensor(losses), names=NAMES[: len(losses)]))
    assert weights.isfinite().all()
    assert (weights >= 0).all()


def test_uncertainty_descends_kendalls_objective() -> None:
    """torchjd's halves every loss; Kendall's halves those of regressions alone."""
    balancer = made("uncertainty")
    logs = learned(balancer)
    assert [value.item() for value in logs] == [0.0, 0.0, 0.0]
    with torch.no_grad():
        for place, value in enumerate(logs):
            value.fill_(0.3 * place - 0.2)
    losses = torch.tensor([0.5, 2.0, 0.1], requires_grad=True)
    reference = UW(3)
    with torch.no_grad():
        reference.log_var.copy_(torch.stack([value.detach() for value in logs]))
    halved = torch.tensor([1.0, 2.0, 2.0])
    expected = slopes(reference(losses * halved), losses, reference.log_var)
    signals = seen(losses.detach())
    torch.testing.assert_close(balancer.weights(signals), expected[0])
    balancer.observe(signals)
    torch.testing.assert_close(torch.stack([_grad(value) for value in logs]), expected[1])


def test_imtl_l_descends_its_objective() -> None:
    balancer = made("imtl_l")
    losses = torch.tensor([0.5, 2.0, 0.1], requires_grad=True)
    reference = IMTLL(3)
    (logs,) = reference.parameters()
    with torch.no_grad():
        for place, value in enumerate(learned(balancer)):
            value.fill_(0.3 * place - 0.2)
            logs[place] = value
    expected = slopes(reference(losses), losses, logs)
    signals = seen(losses.detach())
    torch.testing.assert_close(balancer.weights(signals), expected[0])
    balancer.observe(signals)
    torch.testing.assert_close(torch.stack([_grad(value) for value in learned(balancer)]), expected[1])


@pytest.mark.parametrize("kind", ["uncertainty", "imtl_l"])
def test_what_a_step_lacks_is_not_learned(kind: str) -> None:
    balancer = made(kind)
    balancer.observe(seen([0.5, 2.0], names=("one", "three")))
    assert [value.grad is None for value in learned(balancer)] == [False, True, False]


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def test_dwa_weighs_by_the_means_of_the_last_two_epochs() -> None:
    balancer = made("dwa", temperature=1.5)
    generator = torch.Generator().manual_seed(1)
    losses = torch.rand(4, 5, 3, generator=generator)
    reference = DWA(temperature=1.5)
    for epoch in range(4):
        for step in range(5):
            given_losses = losses[epoch, step].clone().requires_grad_()
            (expected,) = slopes(reference(given_losses), given_losses)
            signals = seen(losses[epoch, step], epoch=epoch)
            torch.testing.assert_close(balancer.weights(signals), expected)
            balancer.observe(signals)
        reference.step()


def test_dwa_counts_a_task_that_an_epoch_lacked_as_steady() -> None:
    balancer = made("dwa")
    for epoch, names in enumerate([NAMES[:3], ("one", "two"), NAMES[:3]]):
        balancer.observe(seen([1.0 / (epoch + 1)] * len(names), names=names, epoch=epoch))
    weights = balancer.weights(seen([1.0, 1.0, 1.0], epoch=3))
    ratios = torch.tensor([2 / 3, 2 / 3, 1.0]) / 2
    torch.testing.assert_close(weights, 3 * ratios.softmax(0))


def test_dwa_bears_losses_of_zero() -> None:
    balancer = made("dwa")
    for epoch in range(3):
        balancer.observe(seen([0.0, 1.0, float(epoch)], epoch=epoch))
    assert balancer.weights(seen(epoch=3)).isfinite().all()


def test_random_weights_are_a_function_of_the_step_alone() -> None:
    balancer = made("random")
    torch.manual_seed(0)
    state = torch.get_rng_state()
    rows = torch.stack([balancer.weights(seen(step=step)) for step in range(2000)])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(rows[7], made("random").weights(seen(step=7)))
    assert len(rows.unique(dim=0)) == 2000
    torch.testing.assert_close(rows.sum(1), torch.ones(2000))
    # The softmax of three normal numbers: the log of the ratio of two weights is normal with variance 2.
    apart = (rows[:, 0] / rows[:, 1]).log()
    assert abs(float(apart.mean())) < 4 * math.sqrt(2 / 2000)
    assert abs(float(apart.var()) - 2) < 0.3


def test_gradnorm_descends_its_objective() -> None:
    """Against autograd on Chen 2018, equation 2, with the aim held constant."""
    lr, alpha = 0.05, 1.5
    balancer = made("gradnorm", lr=lr, alpha=alpha)
    generator = torch.Generator().manual_seed(2)
    expected = torch.ones(3, dtype=torch.float64)
    first: Tensor | None = None
    for step in range(6):
        jacobian = torch.randn(3, 8, generator=generator).double()
        losses = torch.rand(3, generator=generator).double() + 0.1
        first = losses if first is None else first
        torch.testing.assert_close(balancer.weights(seen(losses, jacobian, step=step)), expected.float())
        weights = expected.clone().requires_grad_()
        norms = torch.stack([(w * row).norm() for w, row in zip(weights, jacobian, strict=True)])
        ratios = losses / first
        aim = (norms.mean() * (ratios / ratios.mean()) ** alpha).detach()
        (slope,) = slopes((norms - aim).abs().sum(), weights)
        moved = expected - lr * slope / jacobian.norm(dim=1).mean()
        expected = moved * 3 / moved.sum()


@pytest.mark.parametrize("kind", ["dwa", "gradnorm", "gradvac"])
def test_a_restored_balancer_goes_on_as_the_first(kind: str) -> None:
    generator = torch.Generator().manual_seed(3)
    steps = [
        seen(torch.rand(3, generator=generator), torch.randn(3, 9, generator=generator), step=n, epoch=n // 2)
        for n in range(10)
    ]
    one, other = made(kind), made(kind)
    for number, signals in enumerate(steps):
        if number == 5:
            state = one.state_dict()
            assert all(isinstance(each, Tensor) for each in state.values())
            other.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
            one = other
        weights = one.weights(signals)
        one.observe(signals)
        if number >= 5:
            assert torch.equal(weights, uninterrupted(kind, steps[: number + 1]))


def uninterrupted(kind: str, steps: list[Signals]) -> Tensor:
    balancer = made(kind)
    weights = torch.empty(0)
    for signals in steps:
        weights = balancer.weights(signals)
        balancer.observe(signals)
    return weights


@pytest.mark.parametrize("kind", ["dwa", "gradnorm", "gradvac"])
def test_the_memory_of_other_tasks_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="remembers"):
        made(kind).load_state_dict(made(kind, size=2).state_dict())


def test_learned_scales_are_state() -> None:
    assert set(made("uncertainty").state_dict()) == {f"log_variances.task_{name}" for name in tasks()}
