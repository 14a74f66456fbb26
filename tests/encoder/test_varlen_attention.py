"""Attention by offsets against attention by buckets; and that torch's kernels take what they are given."""

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from test_fused_layer import FAMILIES, LENGTHS, SIZES, batch, encoder_of
from torch import Tensor

from manyhead.encoder.attention import packed_layout
from manyhead.encoder.fused_attention import Attention
from manyhead.encoder.varlen_attention import KERNELS, Sequences, VarlenAttention
from manyhead.packed import offsets_of

HEADS, WIDTH = 3, 24
CPU = torch.device("cpu")


def varlen(lengths: Sequence[int], rate: float = 0.0, name: str = "reference") -> VarlenAttention:
    sequences = Sequences(torch.tensor(offsets_of(lengths), dtype=torch.int32), max(lengths) + 5)
    return VarlenAttention(sequences, HEADS, rate, torch.float32, KERNELS[name])


def rows(lengths: Sequence[int], width: int, seed: int) -> Tensor:
    return torch.randn(sum(lengths), width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("lengths", [LENGTHS, (1,), (4, 0, 7, 0), (0, 3)])
def test_context_and_gradients_are_those_of_buckets(lengths: tuple[int, ...]) -> None:
    qkv, grads = rows(lengths, 3 * WIDTH, 1), rows(lengths, WIDTH, 2)
    layout = packed_layout([length for length in lengths if length], CPU)
    buckets, offsets = Attention(layout, HEADS, 0.0, torch.float32), varlen(lengths)
    expected, kept = buckets.attend(qkv.clone())
    found, saved = offsets.attend(qkv)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(offsets.backward(grads, saved), buckets.backward(grads, kept), rtol=1e-5, atol=1e-6)


def test_what_dropout_leaves_has_its_own_gradient() -> None:
    lengths = (5, 9)
    qkv = rows(lengths, 3 * WIDTH, 1).requires_grad_()
    attention = varlen(lengths, rate=0.4)
    with torch.no_grad():
        plain, _ = varlen(lengths).attend(qkv)
        context, saved = attention.attend(qkv)
        found = attention.backward(torch.ones_like(context), saved)
    assert float((context - plain).abs().max()) > 1e-2
    masks = saved[1:]
    parts: list[Tensor] = []
    for span, keep in zip(qkv.split(lengths), masks, strict=True):
        assert keep is not None
        query, key, value = span.view(len(span), 3, HEADS, -1).permute(1, 2, 0, 3)
        weights = (query @ key.transpose(1, 2) / query.shape[2] ** 0.5).softmax(-1) * (keep != 0) / 0.6
        parts.append((weights @ value).transpose(0, 1).reshape(len(span), -1))
    expected = torch.cat(parts)
    torch.testing.assert_close(context, expected, rtol=1e-3, atol=1e-4)
    expected.sum().backward()
    assert qkv.grad is not None
    torch.testing.assert_close(found, qkv.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["efficient", "flash"])
def test_the_kernels_take_these_arguments(name: str) -> None:
    sequences = Sequences(torch.zeros(len(LENGTHS) + 1, dtype=torch.int32, device="meta"), 64)
    qkv = torch.zeros(sum(LENGTHS), 3 * 64, dtype=torch.bfloat16, device="meta")
    attention = VarlenAttention(sequences, 2, 0.1, torch.float32, KERNELS[name])
    context, saved = attention.attend(qkv)
    assert context.shape == (sum(LENGTHS), 64)
    assert attention.backward(context, saved).shape == qkv.shape


@pytest.mark.parametrize("family", list(FAMILIES))
def test_an_encoder_gives_the_same_states_by_offsets(family: str) -> None:
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = encoder_of(FAMILIES[family](**SIZES, **rates), fused=True)
    ids, segments, lengths = batch()
    positions = torch.cat([torch.arange(length) for length in lengths])
    sequences = Sequences(torch.tensor(offsets_of(lengths), dtype=torch.int32), 50)
    attention_of = partial(VarlenAttention, sequences, kernel=KERNELS["reference"])
    found = encoder.run_with(attention_of, ids, segments, positions, ())
    torch.testing.assert_close(found, encoder(ids, segments, lengths).hidden, rtol=1e-5, atol=2e-5)


def test_an_encoder_that_is_not_fused_does_not_run_by_offsets() -> None:
    encoder = encoder_of(FAMILIES["bert"](**SIZES), fused=False)
    ids, segments, _ = batch()
    with pytest.raises(ValueError, match="one node each"):
        encoder.run_with(
            partial(VarlenAttention, Sequences(ids, 1), kernel=KERNELS["reference"]), ids, segments, ids, ()
        )
