"""Pooling over packed states equals the plain definition, sequence by sequence."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from manyhead.encoder import (
    AttentionPooling,
    ClsPooling,
    ConvPooling,
    MaxPooling,
    MeanPooling,
    PoolerPooling,
    pooling,
)
from manyhead.encoder.packed_encoder import TokenStates

LENGTHS = [5, 1, 9, 3, 3]
WIDTH = 6


def states() -> TokenStates:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn((sum(LENGTHS), WIDTH), generator=generator)
    return TokenStates(hidden, torch.rand(sum(LENGTHS), generator=generator))


PLAIN: dict[str, tuple[Callable[[], torch.nn.Module], Callable[[Tensor, Tensor], Tensor]]] = {
    "cls": (lambda: pooling.build_cls(ClsPooling(), WIDTH, {}), lambda rows, _: rows[0]),
    "mean": (lambda: pooling.build_mean(MeanPooling(), WIDTH, {}), lambda rows, _: rows.mean(0)),
    "max": (lambda: pooling.build_max(MaxPooling(), WIDTH, {}), lambda rows, _: rows.amax(0)),
    "attention": (
        lambda: pooling.build_attention(AttentionPooling(), WIDTH, {}),
        lambda rows, received: (rows * (received / received.sum())[:, None]).sum(0),
    ),
}


@pytest.mark.parametrize("name", list(PLAIN))
def test_pooling_equals_its_definition(name: str) -> None:
    build, plain = PLAIN[name]
    given = states()
    assert given.received is not None
    pairs = zip(given.hidden.split(LENGTHS), given.received.split(LENGTHS), strict=True)
    expected = torch.stack([plain(rows, received) for rows, received in pairs])
    torch.testing.assert_close(build()(given, LENGTHS), expected)


def test_pooler_uses_the_encoders_own_weights() -> None:
    weights = {"dense.weight": torch.randn(WIDTH, WIDTH), "dense.bias": torch.randn(WIDTH)}
    given = states()
    firsts = torch.stack([rows[0] for rows in given.hidden.split(LENGTHS)])
    expected = torch.tanh(firsts @ weights["dense.weight"].T + weights["dense.bias"])
    torch.testing.assert_close(pooling.build_pooler(PoolerPooling(), WIDTH, weights)(given, LENGTHS), expected)


def test_convolution_equals_conv1d_on_each_sequence_alone() -> None:
    torch.manual_seed(1)
    kernels = (1, 3, 5)
    module = pooling.ConvMean(WIDTH, kernels)
    given = states()
    expected = []
    for rows in given.hidden.split(LENGTHS):
        outputs = []
        for kernel, dense in zip(kernels, module.kernels, strict=True):
            assert isinstance(dense, torch.nn.Linear)
            filters = dense.weight.view(WIDTH, kernel, WIDTH).transpose(1, 2)
            outputs.append(F.conv1d(rows.T[None], filters, dense.bias, padding=kernel // 2)[0].T.relu())
        expected.append(module.join(torch.cat(outputs, 1)).mean(0))
    built = pooling.build_conv(ConvPooling(kernels=kernels), WIDTH, {})
    built.load_state_dict(module.state_dict())
    torch.testing.assert_close(built(given, LENGTHS), torch.stack(expected))


@pytest.mark.parametrize("kind", [*PLAIN, "conv"])
def test_a_sequence_pools_the_same_in_any_company(kind: str) -> None:
    torch.manual_seed(1)
    module = pooling.ConvMean(WIDTH, (1, 3, 5)) if kind == "conv" else PLAIN[kind][0]()
    given = states()
    assert given.received is not None
    together = module(given, LENGTHS)
    parts = zip(given.hidden.split(LENGTHS), given.received.split(LENGTHS), LENGTHS, strict=True)
    alone = torch.cat([module(TokenStates(rows, received), [n]) for rows, received, n in parts])
    torch.testing.assert_close(together, alone)
