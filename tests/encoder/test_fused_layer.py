"""A layer as one node of the graph against the same layer run module by module by transformers."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from manyhead.encoder.attention import BUCKET_PAIRS, COUNTS, WIDTHS, bucket_widths, packed_layout
from manyhead.encoder.dropout import replace_dropout
from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.encoder.slots import slots_of
from manyhead.packed import Route

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 80,
    "pad_token_id": 0,
}
FAMILIES: dict[str, Callable[..., PretrainedConfig]] = {
    "bert": BertConfig,
    "roberta": RobertaConfig,
    "xlm-roberta": XLMRobertaConfig,
    "camembert": CamembertConfig,
    "electra": lambda **sizes: ElectraConfig(**sizes, embedding_size=16),
}
LENGTHS = (3, 17, 5, 40, 1, 9, 9, 17, 2, 31)


def encoder_of(config: PretrainedConfig, *, fused: bool, layer: int = -1) -> PackedEncoder:
    torch.manual_seed(0)
    model = AutoModel.from_config(config, attn_implementation="eager")
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    for parameter in model.parameters():  # biases and norms as well, which are 0 and 1 at first
        torch.nn.init.normal_(parameter, std=0.3)
    replace_dropout(model)
    encoder = PackedEncoder(model, layer=layer)
    encoder.fused = fused
    encoder.rounded = False  # empty rows take random numbers of masks
    return encoder.train()


def pair(family: str, *, dropout: float = 0.2, layer: int = -1) -> tuple[PackedEncoder, PackedEncoder]:
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout / 2}
    config = FAMILIES[family](**SIZES, **rates)
    return encoder_of(config, fused=True, layer=layer), encoder_of(config, fused=False, layer=layer)


def batch(lengths: Sequence[int] = LENGTHS) -> tuple[Tensor, Tensor, Sequence[int]]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 99, (sum(lengths),), generator=generator)
    return ids, torch.zeros_like(ids), lengths


def run(encoder: PackedEncoder, dtype: torch.dtype | None = None, lengths: Sequence[int] = LENGTHS) -> Tensor:
    """States, and gradients of all parameters of a loss that each state counts in differently."""
    encoder.zero_grad()
    torch.manual_seed(7)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        states = encoder(*batch(lengths)).hidden.float()
    slopes = torch.sin(torch.arange(states.numel(), dtype=torch.float32)).view_as(states)
    (states * slopes).sum().backward()
    return states.detach()


def gradients(encoder: PackedEncoder) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in encoder.named_parameters()}


def assert_near(one: PackedEncoder, other: PackedEncoder, share: float) -> None:
    found, expected = gradients(one), gradients(other)
    largest = max(float(each.abs().max()) for each in expected.values() if each is not None)
    assert largest > 0
    for name, gradient in expected.items():
        if gradient is None:
            assert found[name] is None, name
            continue
        close = share * max(float(gradient.abs().max()), 1e-2 * largest)
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=close, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("layer", [-1, 1])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_states_and_gradients_are_those_of_the_modules(family: str, dropout: float, layer: int) -> None:
    fused, plain = pair(family, dropout=dropout, layer=layer)
    assert fused.runs_fused
    assert not plain.runs_fused
    torch.testing.assert_close(run(fused), run(plain), rtol=1e-5, atol=2e-5)
    assert_near(fused, plain, 5e-5)


@pytest.mark.parametrize("lengths", [(1,), (7,), (4, 4, 4), (80, 1), (2, 3, 5, 7, 11, 13)])
def test_any_lengths_agree(lengths: tuple[int, ...]) -> None:
    fused, plain = pair("bert")
    torch.testing.assert_close(run(fused, lengths=lengths), run(plain, lengths=lengths), rtol=1e-5, atol=2e-5)
    assert_near(fused, plain, 5e-5)


@pytest.mark.parametrize("by_part", [False, True])
@pytest.mark.parametrize("lengths", [(1,), (16,), (4, 4, 4), (33, 1), LENGTHS])
def test_empty_rows_change_nothing(lengths: tuple[int, ...], by_part: bool) -> None:
    rounded, plain = pair("bert", dropout=0.0)
    rounded.rounded = True
    rounded.sink = Sink(is_open=False) if by_part else None
    torch.testing.assert_close(run(rounded, lengths=lengths), run(plain, lengths=lengths), rtol=1e-5, atol=2e-5)
    assert_near(rounded, plain, 5e-5)


def test_slots_of_parts_are_rounded_each_for_itself() -> None:
    lengths = (5, 5, 20, 3)
    layout = packed_layout(lengths, torch.device("cpu"))
    routes = [Route("a", 0, 10), Route("b", 10, 33)]
    slots = slots_of(layout, 33, routes, by_part=True, device=torch.device("cpu"))
    assert slots.routes == [Route("a", 0, 16), Route("b", 16, 48)]
    assert slots.count == 48
    states = torch.randn(33, 4, requires_grad=True)
    spread = slots.spread(states)
    assert torch.equal(spread[10:16], torch.zeros(6, 4))
    assert torch.equal(spread[16:39], states[10:])
    assert torch.equal(slots.collect(spread), states)
    (gradient,) = torch.autograd.grad(slots.collect(spread * 2).sum(), states)
    assert torch.equal(gradient, torch.full((33, 4), 2.0))
    assert slots_of(layout, 33, routes, by_part=False, device=torch.device("cpu")).routes == routes


def test_both_agree_in_bf16_as_far_as_it_goes() -> None:
    fused, plain = pair("bert")
    exact, rough, found = run(plain), run(plain, torch.bfloat16), run(fused, torch.bfloat16)
    assert float((found - exact).norm()) <= 1.5 * float((rough - exact).norm())
    assert found.dtype == torch.float32


def test_evaluation_draws_nothing_and_agrees() -> None:
    fused, plain = pair("bert")
    state = torch.get_rng_state()
    with torch.no_grad():
        one, other = fused.eval()(*batch()).hidden, plain.eval()(*batch()).hidden
    torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("place", ["layer.1.attention.self.query", "layer.2.output", "layer.0"])
def test_a_hook_on_a_layer_is_heard(place: str) -> None:
    fused, _ = pair("bert")
    heard: list[nn.Module] = []
    module = fused.model.get_submodule(f"encoder.{place}")
    hook = module.register_forward_hook(lambda module, args, output: heard.append(module))
    run(fused)
    assert heard == [module]
    hook.remove()
    assert fused.runs_fused


def test_other_layers_run_by_their_modules() -> None:
    config = DistilBertConfig(vocab_size=99, dim=24, n_layers=2, n_heads=3, hidden_dim=40, max_position_embeddings=80)
    assert not encoder_of(config, fused=True).runs_fused
    assert not encoder_of(BertConfig(**SIZES, hidden_act="relu"), fused=True).runs_fused
    assert not encoder_of(BertConfig(**SIZES, is_decoder=True), fused=True).runs_fused


@pytest.mark.parametrize("frozen", ["attention.self.key", "weight", "bias", "layer.0", "embeddings", "LayerNorm"])
def test_frozen_parameters_get_no_gradient_and_others_theirs(frozen: str) -> None:
    fused, plain = pair("bert")
    for encoder in (fused, plain):
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(frozen not in name)
        run(encoder)
    assert_near(fused, plain, 5e-5)


def test_gradients_of_double_precision_are_those_of_differences() -> None:
    config = BertConfig(**{**SIZES, "num_hidden_layers": 1}, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    encoder = encoder_of(config, fused=True).double()
    ids, segments, lengths = batch((3, 4))

    def loss(noise: Tensor) -> Tensor:
        torch.manual_seed(3)
        return encoder(ids, segments, lengths, noise=noise).hidden.square().sum()

    start = torch.zeros(7, 24, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (start,), fast_mode=True)


def test_there_is_no_second_derivative() -> None:
    fused, _ = pair("bert")
    states = fused(*batch()).hidden
    weight = fused.model.get_submodule("encoder.layer.0.output.dense").weight
    assert isinstance(weight, Tensor)
    (gradient,) = torch.autograd.grad([states.square().sum()], [weight], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


class Sink:
    """Keeps what it is given, and is open or not."""

    def __init__(self, is_open: bool) -> None:
        self.is_open = is_open
        self.found: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def add_dense(self, modules: Sequence[nn.Linear], routes: Sequence[Route], inputs: Tensor, grads: Tensor) -> None:
        for module, part in zip(modules, grads.split([each.out_features for each in modules], dim=1), strict=True):
            self.found[module] = (part.t() @ inputs, part.sum(0))

    def add_norm(
        self,
        module: nn.LayerNorm,
        routes: Sequence[Route],
        inputs: Tensor,
        grads: Tensor,
        *,
        stats: tuple[Tensor, Tensor],
    ) -> None:
        normed = (inputs - stats[0]) * stats[1]
        self.found[module] = ((normed * grads).sum(0), grads.sum(0))


@pytest.mark.parametrize("is_open", [True, False])
def test_a_sink_is_given_what_makes_the_gradients(is_open: bool) -> None:
    fused, plain = pair("bert")
    run(plain)
    sink = Sink(is_open)
    fused.sink = sink
    for module in fused.fused_modules():
        module.requires_grad_(False)
    run(fused)
    assert len(sink.found) == (3 * 8 if is_open else 0)
    names = {module: name for name, module in fused.named_modules()}
    for module, (weight, bias) in sink.found.items():
        twin = plain.get_submodule(names[module])
        for found, expected in ((weight, twin.weight.grad), (bias, twin.bias.grad)):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("lengths", [(1,), (5, 5, 5), LENGTHS, tuple(range(1, 300)), (512, 1) * 30])
def test_buckets_hold_all_and_cost_no_more_than_one_or_each(lengths: tuple[int, ...]) -> None:
    widths = bucket_widths(lengths)
    assert widths == sorted(set(widths))
    assert widths[-1] == max(lengths)
    layout = packed_layout(lengths, torch.device("cpu"))
    cost = sum(bucket.count * bucket.width**2 + BUCKET_PAIRS for bucket in layout.buckets)
    assert len(lengths) <= sum(bucket.count for bucket in layout.buckets) < len(lengths) + COUNTS * len(layout.buckets)
    assert cost <= (len(lengths) + COUNTS) * (max(lengths) + WIDTHS) ** 2 + BUCKET_PAIRS
