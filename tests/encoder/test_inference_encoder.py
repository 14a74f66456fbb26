"""The forward for inference = the encoder's own, in each precision; int8 = a literal product of rounded numbers."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig

from manyhead.device import choose_hardware
from manyhead.encoder.inference_dense import FloatDense, Int8Dense, quantized
from manyhead.encoder.inference_encoder import InferenceEncoder, Precision, can_run
from manyhead.encoder.load import build_encoder
from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.errors import UsageError
from manyhead.packed import PackedBatch, PackedPart

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 200,
    "pad_token_id": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"type_vocab_size": 1, "bos_token_id": 0, "eos_token_id": 2},
    "electra": {"embedding_size": 16},
}
FP32 = Precision(torch.float32)
SORTED, MIXED = [2, 5, 5, 5, 9, 30], [5, 1, 40, 7, 7, 13, 2, 64]


def has_int8() -> bool:
    try:
        choose_hardware("cpu", "int8", torch.get_num_threads())
    except UsageError:
        return False
    return True


needs_bf16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bf16 products"
)
needs_int8 = pytest.mark.skipif(not has_int8(), reason="this processor has no VNNI")


def tiny(model_type: str = "bert", **options: Any) -> PackedEncoder:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **SIZES, **FAMILIES.get(model_type, {}))
    encoder, _ = build_encoder(config, None, **{"layer": -1, "capture": False, "max_tokens": 100, **options})
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return encoder.eval()


def batch_of(lengths: list[int]) -> PackedBatch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, SIZES["vocab_size"], (sum(lengths),), generator=generator)
    part = PackedPart("a", 0, len(lengths), torch.arange(len(lengths))[:, None])
    return PackedBatch(ids, ids % 2, tuple(lengths), (part,))


@torch.no_grad()
def states_of(encoder: PackedEncoder, batch: PackedBatch) -> torch.Tensor:
    return encoder(batch.input_ids, batch.segment_ids, batch.lengths).hidden


@pytest.mark.parametrize("lengths", [SORTED, MIXED, [7]])
@pytest.mark.parametrize("layer", [-1, 1, 0])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_states_are_the_encoders_own(family: str, layer: int, lengths: list[int]) -> None:
    encoder, batch = tiny(family, layer=layer), batch_of(lengths)
    assert can_run(encoder, FP32)
    found, kept = InferenceEncoder(encoder, FP32)(batch)
    assert kept == batch.lengths
    torch.testing.assert_close(found.hidden, states_of(encoder, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [-1, 1, 0])
@torch.no_grad()
def test_first_tokens_alone_are_those_among_all(layer: int) -> None:
    encoder, batch = tiny(layer=layer), batch_of(MIXED)
    found, lengths = InferenceEncoder(encoder, FP32, first_only=True)(batch)
    assert lengths == (1,) * len(MIXED)
    firsts = [sum(MIXED[:number]) for number in range(len(MIXED))]
    torch.testing.assert_close(found.hidden, states_of(encoder, batch)[firsts], atol=1e-5, rtol=1e-5)


@needs_bf16
@torch.no_grad()
def test_bf16_states_are_those_of_fp32_but_for_rounding() -> None:
    encoder, batch = tiny(), batch_of(MIXED)
    found, _ = InferenceEncoder(encoder, Precision(torch.bfloat16))(batch)
    assert found.hidden.dtype is torch.float32
    expected = states_of(encoder, batch)
    assert (found.hidden - expected).norm() < 0.02 * expected.norm()


@needs_int8
@torch.no_grad()
def test_int8_states_are_those_of_fp32_but_for_rounding() -> None:
    encoder, batch = tiny(), batch_of(MIXED)
    expected = states_of(encoder, batch)
    for first_only in (False, True):
        found, _ = InferenceEncoder(encoder, Precision(torch.float32, int8=True), first_only=first_only)(batch)
        whole = expected if not first_only else expected[[sum(MIXED[:number]) for number in range(len(MIXED))]]
        assert 0 < (found.hidden - whole).norm() < 0.05 * whole.norm()


def test_what_was_put_into_an_encoder_is_left_to_its_modules() -> None:
    assert not can_run(tiny(capture=True), FP32)
    changed = tiny()
    changed.behind.append(lambda states, flow: states)
    assert not can_run(changed, FP32)
    hooked = tiny()
    hooked.model.get_submodule("encoder.layer.1.output.dense").register_forward_hook(lambda *_: None)
    assert not can_run(hooked, FP32)
    unpacked = tiny()
    unpacked.use_packed(False)
    assert not can_run(unpacked, FP32)
    config = AutoConfig.for_model("distilbert", vocab_size=99, dim=32, n_layers=1, n_heads=4, hidden_dim=48)
    other, _ = build_encoder(config, None, layer=-1, capture=False, max_tokens=50)
    assert not can_run(other, FP32)


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bf16)])
def test_a_dense_layer_is_torchs_own(dtype: torch.dtype, gelu: bool) -> None:
    weight, bias, rows = torch.randn(48, 32), torch.randn(48), torch.randn(11, 32)
    found = FloatDense(weight, bias, dtype, gelu=gelu)(rows)
    expected = F.linear(rows.to(dtype).float(), weight.to(dtype).float(), bias.to(dtype).float())
    assert found.dtype is dtype
    tolerance = 1e-5 if dtype is torch.float32 else 0.02
    torch.testing.assert_close(found.float(), F.gelu(expected) if gelu else expected, atol=tolerance, rtol=tolerance)


@needs_int8
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(
    "rows", [torch.randn(300, 32), torch.randn(9, 32).abs(), torch.zeros(3, 32), -torch.ones(2, 32)]
)
def test_an_int8_layer_is_the_product_of_rounded_numbers(rows: torch.Tensor, gelu: bool) -> None:
    weight, bias = torch.randn(48, 32), torch.randn(48)
    found = Int8Dense(weight, bias, torch.float32, gelu=gelu)(rows)
    scales = weight.abs().amax(1, keepdim=True) / 127
    scale = (max(float(rows.max()), 0) - min(float(rows.min()), 0)) / 254 or 1.0
    expected = F.linear((rows / scale).round() * scale, (weight / scales).round() * scales, bias)
    # A number half way between two may be rounded to either.
    torch.testing.assert_close(found, F.gelu(expected) if gelu else expected, atol=float(3 * scale), rtol=0.02)


@needs_int8
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_int8_layer_keeps_what_is_not_finite(bad: float) -> None:
    rows = torch.randn(4, 32)
    rows[1, 2] = bad
    found = Int8Dense(torch.randn(48, 32), torch.randn(48), torch.bfloat16)(rows)
    assert found.shape == (4, 48)
    assert bool(found.isnan().all())


@given(st.integers(1, 600), st.floats(1e-3, 1e3), st.sampled_from([torch.float32, torch.bfloat16]), st.integers(0, 9))
def test_quantized_rows_are_rounded_ones(count: int, spread: float, dtype: torch.dtype, seed: int) -> None:
    rows = (torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)) * spread).to(dtype)
    low, high = min(float(rows.min()), 0), max(float(rows.max()), 0)
    scale = (high - low) / 254
    zero = math.ceil(-low / scale)
    found = quantized(rows, scale, zero).double()
    exact = rows.double() / scale + zero
    assert float((found - exact).abs().max()) <= 0.5 + 1e-3


@needs_bf16
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_weights_cast_once_give_the_same_bits(family: str) -> None:
    encoder, batch, precision = tiny(family), batch_of(MIXED), Precision(torch.bfloat16)
    before, _ = InferenceEncoder(encoder, precision)(batch)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)
    after, _ = InferenceEncoder(encoder, precision)(batch)
    assert torch.equal(before.hidden, after.hidden)


def test_an_encoder_whose_own_forward_failed_its_test_is_not_run_here() -> None:
    encoder = tiny()
    encoder.fused = False
    assert not can_run(encoder, FP32)
