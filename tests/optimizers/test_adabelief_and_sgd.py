"""AdaBelief against the paper's algorithm and pytorch_optimizer's, SGD against its formula."""

import numpy as np
import pytest
import pytorch_optimizer
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from manyhead.optimizers import AdaBeliefOptions, SGDOptions, adabelief, sgd
from manyhead.optimizers.groups import Group

SHAPES = ((3, 4), (4,), (2, 3, 2), ())


def gradients(step: int, dtype: torch.dtype) -> list[Tensor]:
    """Of sizes that differ by powers of ten; the same in every third step, so that running means catch up."""
    generator = torch.Generator().manual_seed(step if step % 3 else 0)
    return [
        10.0 ** (place - 2) * torch.randn(shape, generator=generator, dtype=dtype) for place, shape in enumerate(SHAPES)
    ]


def parameters(dtype: torch.dtype) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(99)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def group_of(members: list[nn.Parameter], lr: float, weight_decay: float = 0.0) -> Group:
    return Group(tuple(str(place) for place in range(len(members))), tuple(members), lr, weight_decay)


def as_in_the_paper(
    start: NDArray[np.float64],
    given: list[NDArray[np.float64]],
    lr: float,
    eps: float,
    decay: float = 0.0,
    eps_in_s: bool = True,
) -> NDArray[np.float64]:
    """Zhuang et al. 2020, Algorithm 2, line by line, in double precision; ``decay`` decoupled."""
    beta1, beta2 = 0.9, 0.999
    theta, m, s, t = start.copy(), np.zeros_like(start), np.zeros_like(start), 0
    for g in given:
        t = t + 1
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m) ** 2 + (eps if eps_in_s else 0.0)
        m_hat = m / (1 - beta1**t)
        s_hat = s / (1 - beta2**t)
        theta = theta - lr * decay * theta
        theta = theta - lr * m_hat / (np.sqrt(s_hat) + eps)
    return theta


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("eps", "decay"), [(1e-16, 0.0), (1e-16, 0.3), (1e-4, 0.0)])
def test_adabelief_is_the_papers(dtype: torch.dtype, eps: float, decay: float) -> None:
    members = parameters(dtype)
    starts = [member.detach().double().numpy().copy() for member in members]
    optimizer = adabelief.build(AdaBeliefOptions(eps=eps, lr=1e-3), [group_of(members, 1e-3, decay)])
    for step in range(20):
        for member, gradient in zip(members, gradients(step, dtype), strict=True):
            member.grad = gradient
        optimizer.step()
    for place, member in enumerate(members):
        given = [gradients(step, dtype)[place].double().numpy() for step in range(20)]
        expected = as_in_the_paper(starts[place], given, 1e-3, eps, decay)
        np.testing.assert_allclose(member.detach().numpy(), expected, rtol=1e-6 if dtype == torch.float32 else 1e-12)


def test_the_eps_inside_s_counts() -> None:
    """Without it the literal algorithm comes out elsewhere, so the test above would see that it was left out."""
    start, given = np.ones(3), [np.full(3, 0.01)] * 20
    with_it, without = (as_in_the_paper(start, given, 1e-3, 1e-4, eps_in_s=inside) for inside in (True, False))
    assert np.abs(with_it - without).max() > 1e-4


def test_large_tensors_and_tensors_in_another_order_are_updated_whole() -> None:
    """Pieces are for speed only."""
    large = nn.Parameter(torch.randn(3, 100_003))
    turned = nn.Parameter(large.detach().t().clone(memory_format=torch.preserve_format))
    assert not turned.is_contiguous()
    small = [nn.Parameter(row.clone()) for row in large.detach()]
    optimizer = adabelief.build(AdaBeliefOptions(), [group_of([large, turned, *small], 1e-3, 0.1)])
    for step in range(3):
        large.grad = torch.randn(large.shape, generator=torch.Generator().manual_seed(step))
        turned.grad = large.grad.t()
        for row, member in enumerate(small):
            member.grad = large.grad[row]
        optimizer.step()
    torch.testing.assert_close(large, torch.stack(tuple(small)), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(large.t(), turned, rtol=1e-6, atol=1e-8)


def test_adabelief_is_that_of_pytorch_optimizer_while_all_parameters_have_gradients() -> None:
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    optimizer = adabelief.build(AdaBeliefOptions(), [group_of(ours, 1e-3, 0.1)])
    other = pytorch_optimizer.AdaBelief(theirs, lr=1e-3, weight_decay=0.1)
    for step in range(20):
        for one, another, gradient in zip(ours, theirs, gradients(step, torch.float32), strict=True):
            one.grad, another.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        other.step()
    for one, another in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, another, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["adabelief", "sgd"])
def test_steps_without_a_gradient_are_no_steps(kind: str) -> None:
    """A parameter that has gradients now and then ends where it would if there were no other steps."""
    builds = {
        "adabelief": lambda group: adabelief.build(AdaBeliefOptions(), [group]),
        "sgd": lambda group: sgd.build(SGDOptions(momentum=0.9, nesterov=True), [group]),
    }
    sometimes, alone = parameters(torch.float32), parameters(torch.float32)
    optimizer = builds[kind](group_of(sometimes, 1e-2, 0.1))
    reference = builds[kind](group_of(alone, 1e-2, 0.1))
    for step in range(12):
        for one, another, gradient in zip(sometimes, alone, gradients(step, torch.float32), strict=True):
            one.grad, another.grad = (gradient.clone(), gradient.clone()) if step % 4 == 3 else (None, None)
        sometimes[0].grad = gradients(step, torch.float32)[0]
        optimizer.step()
        if step % 4 == 3:
            reference.step()
    assert all(torch.equal(one, another) for one, another in zip(sometimes[1:], alone[1:], strict=True))
    assert not torch.equal(sometimes[0], alone[0])


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_momentum_and_decay_is_its_formula(nesterov: bool) -> None:
    members = parameters(torch.float64)
    expected = [member.detach().clone() for member in members]
    velocity = [torch.zeros_like(member) for member in members]
    optimizer = sgd.build(SGDOptions(momentum=0.9, nesterov=nesterov), [group_of(members, 1e-2, 0.1)])
    for step in range(10):
        for place, gradient in enumerate(gradients(step, torch.float64)):
            members[place].grad = gradient.clone()
            decayed = gradient + 0.1 * expected[place]
            velocity[place] = 0.9 * velocity[place] + decayed
            expected[place] -= 1e-2 * (decayed + 0.9 * velocity[place] if nesterov else velocity[place])
        optimizer.step()
    for member, value in zip(members, expected, strict=True):
        torch.testing.assert_close(member.detach(), value, rtol=1e-10, atol=0)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValidationError, match="needs a momentum"):
        SGDOptions(nesterov=True)
