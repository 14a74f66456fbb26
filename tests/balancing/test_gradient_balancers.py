"""Balancers of gradients, against literal transcriptions, torchjd and their own equations."""

import importlib.util
import itertools

import pytest
import torch
from signal_makers import NAMES, made, seen
from torch import Tensor
from torchjd.aggregation import (
    IMTLG,
    MGDA,
    AlignedMTL,
    CAGrad,
    DualProj,
    FairGradWeighting,
    GradVacWeighting,
    PCGradWeighting,
    UPGrad,
)

from manyhead.balancing import BALANCING, GradientOptions
from manyhead.balancing.fairness import fair_weights
from manyhead.balancing.pcgrad import pcgrad_weights
from manyhead.errors import UsageError
from manyhead.schedules.draws import permutations, random_words

SIZES = (1, 2, 3, 5)
WEIGHTINGS = {
    "upgrad": UPGrad(),
    "dualproj": DualProj(),
    "mgda": MGDA(),
    "imtl_g": IMTLG(),
    "aligned_mtl": AlignedMTL(),
}
"""Kinds and the aggregators of torchjd that give the same update."""


def jacobians(size: int) -> dict[str, Tensor]:
    """Gradients (K, 12) of all kinds, fp64."""
    generator = torch.Generator().manual_seed(size)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    signs = torch.tensor([1.0, -1.0] * size, dtype=torch.float64)[:size, None]
    opposed = normal(1, 12) * signs + 0.3 * normal(size, 12)
    with_zero = normal(size, 12)
    with_zero[0] = 0.0
    scales = torch.logspace(-10, 10, size, dtype=torch.float64)[:, None]
    return {
        "random": normal(size, 12),
        "conflicting": opposed,
        "opposite": normal(1, 12) * signs,
        "equal": normal(1, 12).repeat(size, 1),
        "zero": torch.zeros(size, 12, dtype=torch.float64),
        "with zero": with_zero,
        "scaled": opposed * scales,
        "tiny": opposed * 1e-10,
        "huge": opposed * 1e10,
    }


CASES = [pytest.param(size, name, id=f"{size}-{name}") for size in SIZES for name in jacobians(size)]


def surgery(gradients: Tensor, orders: list[list[int]], *, always: bool) -> Tensor:
    """Yu 2020, algorithm 1, on vectors (K, P); S3's variant projects without asking."""
    total = torch.zeros_like(gradients[0])
    for task, order in enumerate(orders):
        projected = gradients[task].clone()
        for other in order:
            if other == task or not bool(gradients[other].any()):
                continue
            product = projected @ gradients[other]
            if always or product < 0:
                projected = projected - product / (gradients[other] @ gradients[other]) * gradients[other]
        total = total + projected
    return total


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize(("size", "name"), CASES)
def test_pcgrad_is_the_published_procedure(size: int, name: str, always: bool) -> None:
    gradients = jacobians(size)[name]
    for step in range(5):
        orders = permutations(size, (13, "stage", step, "pcgrad"), count=size).tolist()
        weights = made("pcgrad", size, always=always).weights(seen(jacobian=gradients, names=NAMES[:size], step=step))
        assert weights.isfinite().all()
        expected = surgery(gradients, orders, always=always)
        torch.testing.assert_close(weights @ gradients, expected, rtol=1e-6, atol=1e-9 * float(gradients.abs().max()))


def test_pcgrad_depends_on_the_order_and_takes_all_of_them() -> None:
    gradients = jacobians(3)["conflicting"] + jacobians(3)["random"]
    gramian = gradients @ gradients.t()
    possible = {
        tuple(pcgrad_weights(gramian, orders).tolist())
        for orders in itertools.product(itertools.permutations(range(3)), repeat=3)
    }
    assert len(possible) > 1
    balancer = made("pcgrad")
    found = {tuple(balancer.weights(seen(jacobian=gradients, step=step)).tolist()) for step in range(200)}
    assert found == possible
    with torch.random.fork_rng():
        theirs = {tuple(PCGradWeighting()(gramian).tolist()) for _ in range(200)}
    rounded = [{tuple(round(weight, 9) for weight in each) for each in every} for every in (found, theirs)]
    assert rounded[0] == rounded[1]


def test_pcgrad_of_two_tasks_is_torchjds() -> None:
    for name, gradients in jacobians(2).items():
        if "zero" not in name:  # torchjd divides by the length of 0
            expected = PCGradWeighting()(gradients @ gradients.t())
            found = made("pcgrad", 2).weights(seen(jacobian=gradients, names=NAMES[:2]))
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_agreeing_gradients_are_left_alone_and_always_projects_them() -> None:
    gradients = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert made("pcgrad", 2).weights(seen(jacobian=gradients, names=NAMES[:2])).tolist() == [1.0, 1.0]
    assert made("pcgrad", 2, always=True).weights(seen(jacobian=gradients, names=NAMES[:2])).tolist() == [0.0, 0.5]


@pytest.mark.parametrize("kind", WEIGHTINGS)
@pytest.mark.parametrize("name", ["random", "conflicting"])
def test_weightings_give_what_torchjds_aggregators_give(kind: str, name: str) -> None:
    gradients = jacobians(3)[name]
    found = made(kind).weights(seen(jacobian=gradients)) @ gradients
    torch.testing.assert_close(found, WEIGHTINGS[kind](gradients), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", [*WEIGHTINGS, "gradvac"])
def test_short_gradients_get_the_weights_of_long_ones(kind: str) -> None:
    """torchjd's guards against division by zero would take gradients of 1e-3 for none."""
    gradients = jacobians(3)["conflicting"]
    expected = made(kind).weights(seen(jacobian=gradients))
    torch.testing.assert_close(made(kind).weights(seen(jacobian=gradients * 1e-6)), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", [*WEIGHTINGS, "gradnorm", "pcgrad", "gradvac", "nash_mtl", "fairgrad"])
@pytest.mark.parametrize(("size", "name"), CASES)
def test_all_gradients_get_finite_weights(kind: str, size: int, name: str) -> None:
    balancer = made(kind, size)
    weights = balancer.weights(seen([1.0] * size, jacobians(size)[name], names=NAMES[:size]))
    assert weights.shape == (size,)
    assert weights.isfinite().all()


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize(("size", "name"), [case for case in CASES if "zero" not in str(case.values[1])])
def test_fair_weights_solve_their_equation(size: int, name: str, alpha: float) -> None:
    gradients = jacobians(size)[name]
    gramian = gradients @ gradients.t()
    weights = fair_weights(gramian, alpha)
    assert (weights > 0).all()
    # Opposite gradients have no solution, and twenty orders of magnitude leave no digits to compare but for alpha 1.
    if name != "opposite" and (name != "scaled" or alpha == 1):
        torch.testing.assert_close(gramian @ weights, weights ** (-1 / alpha), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_fairgrad_is_torchjds(alpha: float) -> None:
    gradients = jacobians(3)["conflicting"]
    expected = FairGradWeighting(alpha)(gradients @ gradients.t())
    torch.testing.assert_close(
        made("fairgrad", alpha=alpha).weights(seen(jacobian=gradients)), expected, rtol=1e-5, atol=0
    )


def test_fair_weights_leave_out_gradients_of_length_0() -> None:
    gradients = jacobians(3)["with zero"]
    weights = made("fairgrad").weights(seen(jacobian=gradients))
    assert weights[0] == 0
    expected = made("fairgrad", 2).weights(seen(jacobian=gradients[1:], names=NAMES[:2]))
    torch.testing.assert_close(weights[1:], expected)


def test_nash_mtl_is_fairgrad_of_one_cut_to_its_longest_norm() -> None:
    gradients = jacobians(3)["conflicting"]
    fair = made("fairgrad").weights(seen(jacobian=gradients))
    torch.testing.assert_close((fair @ gradients).norm(), torch.tensor(3.0, dtype=torch.float64).sqrt())
    cut = made("nash_mtl").weights(seen(jacobian=gradients))
    torch.testing.assert_close(cut, fair / 3**0.5)
    torch.testing.assert_close(made("nash_mtl", max_norm=9.0).weights(seen(jacobian=gradients)), fair)


def test_gradvac_is_torchjds_with_orders_of_its_own_step() -> None:
    generator = torch.Generator().manual_seed(4)
    balancer, reference = made("gradvac", beta=0.3), GradVacWeighting(0.3)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for step in range(6):
        gradients = torch.randn(3, 5, generator=generator).double()
        signals = seen(jacobian=gradients, step=step)
        found = balancer.weights(signals)
        assert torch.equal(torch.get_rng_state(), state)
        with torch.random.fork_rng():
            torch.manual_seed(int(random_words(1, (*signals.key, "gradvac"))[0] >> 1))
            expected = reference(gradients @ gradients.t())
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_gradvac_keeps_the_angles_of_tasks_that_a_step_lacks() -> None:
    balancer = made("gradvac", beta=0.3)
    gradients = jacobians(3)["random"]
    balancer.weights(seen(jacobian=gradients))
    before = balancer.state_dict()["_extra_state"]
    balancer.weights(seen(jacobian=gradients[:2], names=("one", "three"), step=1))
    after = balancer.state_dict()["_extra_state"]
    assert torch.equal(before[1], after[1])
    assert torch.equal(before[:, 1], after[:, 1])
    assert not torch.equal(before[0, 2], after[0, 2])


def test_cagrad_works_or_names_what_to_install() -> None:
    if importlib.util.find_spec("cvxpy") is None:
        with pytest.raises(UsageError, match=r'pip install "torchjd\[cagrad\]"'):
            made("cagrad")
        return
    gradients = jacobians(3)["conflicting"]
    found = made("cagrad", c=0.4).weights(seen(jacobian=gradients)) @ gradients
    torch.testing.assert_close(found, CAGrad(c=0.4)(gradients), rtol=1e-4, atol=1e-6)


def test_surgery_is_of_shared_parameters_and_takes_constants() -> None:
    for kind, entry in BALANCING.items():
        if issubclass(entry.options, GradientOptions) and kind != "cagrad":
            balancer = made(kind, weights={"two": 4.0})
            assert balancer.needs_gramian
            assert not balancer.weighs_heads
            assert balancer.constants == {"two": 4.0}
            assert entry.options.several_tasks
