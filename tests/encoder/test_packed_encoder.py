"""Packed = padded = one by one = Hugging Face, in outputs and gradients, for every family we promise."""

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from manyhead.encoder.attention import packed_layout
from manyhead.encoder.dropout import Dropout
from manyhead.encoder.load import build_encoder
from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.errors import UsageError

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 200,
    "pad_token_id": 1,
}
PACKED: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"type_vocab_size": 1, "bos_token_id": 0, "eos_token_id": 2},
    "electra": {"embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48},
    "albert": {"embedding_size": 16},
    "modernbert": {
        "local_attention": 16,
        "global_attn_every_n_layers": 2,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "cls_token_id": 0,
        "sep_token_id": 2,
    },
}
UNPACKED: dict[str, dict[str, Any]] = {
    "mpnet": {},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
}
LENGTHS = [5, 1, 40, 7, 7, 13, 2, 64]


def config_of(model_type: str, extra: dict[str, Any]) -> Any:
    config = AutoConfig.for_model(model_type, **{**SIZES, **extra})
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return config


def tiny(model_type: str, extra: dict[str, Any], **options: Any) -> PackedEncoder:
    torch.manual_seed(0)
    encoder, _ = build_encoder(
        config_of(model_type, extra), None, **{"layer": -1, "capture": False, "max_tokens": 100, **options}
    )
    return encoder


def tokens(lengths: list[int]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(5, SIZES["vocab_size"], (sum(lengths),), generator=generator)


def padded_reference(encoder: PackedEncoder, ids: Tensor, segments: Tensor, lengths: list[int]) -> Tensor:
    """Hugging Face's own eager path over padded rows, the real tokens end to end."""
    model = encoder.model
    width = max(lengths)
    rows, masks, types = [], [], []
    for row, kinds in zip(ids.split(lengths), segments.split(lengths), strict=True):
        gap = width - len(row)
        rows.append(torch.cat([row, torch.full((gap,), SIZES["pad_token_id"])]))
        types.append(torch.cat([kinds, torch.zeros(gap, dtype=torch.int64)]))
        masks.append(torch.cat([torch.ones(len(row)), torch.zeros(gap)]))
    mask = torch.stack(masks).long()
    model.set_attn_implementation("eager")
    arguments: dict[str, Any] = {"input_ids": torch.stack(rows), "attention_mask": mask}
    if encoder.has_segments:
        arguments["token_type_ids"] = torch.stack(types)
    return model(**arguments).last_hidden_state[mask.bool()]


@pytest.mark.parametrize("model_type", [*PACKED, *UNPACKED])
def test_packed_equals_padded_hugging_face_in_states_and_gradients(model_type: str) -> None:
    encoder = tiny(model_type, {**PACKED, **UNPACKED}[model_type])
    assert encoder.packed is (model_type in PACKED)
    reference = copy.deepcopy(encoder)
    ids = tokens(LENGTHS)
    segments = torch.cat([(torch.arange(n) >= n // 2).long() for n in LENGTHS])
    encoder.sparse_embedding_gradients(True)

    found = encoder(ids, segments, LENGTHS).hidden
    expected = padded_reference(reference, ids, segments, LENGTHS)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    pairs = zip(encoder.model.named_parameters(), reference.model.parameters(), strict=True)
    compared = 0
    for (name, ours), theirs in pairs:
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None and theirs.grad is not None:
            gradient = ours.grad.to_dense() if ours.grad.is_sparse else ours.grad
            torch.testing.assert_close(gradient, theirs.grad, atol=2e-4, rtol=1e-4)
            compared += 1
    assert compared >= 20


@pytest.mark.parametrize("model_type", list(PACKED))
@pytest.mark.parametrize("layer", [-1, -2, 0])
def test_any_layer_equals_one_by_one(model_type: str, layer: int) -> None:
    encoder = tiny(model_type, PACKED[model_type], layer=layer, capture=layer != 0).eval()
    ids = tokens(LENGTHS)
    packed = encoder(ids, torch.zeros_like(ids), LENGTHS)
    encoder.use_packed(False)
    single = [encoder(part, part * 0, [len(part)]) for part in ids.split(LENGTHS)]
    torch.testing.assert_close(packed.hidden, torch.cat([states.hidden for states in single]), atol=1e-5, rtol=1e-5)
    if layer != 0:
        received = torch.cat([states.received for states in single if states.received is not None])
        assert packed.received is not None
        torch.testing.assert_close(packed.received, received, atol=1e-5, rtol=1e-5)


def test_equal_lengths_path_equals_packed() -> None:
    encoder = tiny("bert", {}).eval()
    ids = tokens(LENGTHS)
    packed = encoder(ids, torch.zeros_like(ids), LENGTHS).hidden
    encoder.use_packed(False)
    torch.testing.assert_close(encoder(ids, torch.zeros_like(ids), LENGTHS).hidden, packed, atol=1e-5, rtol=1e-5)


def test_a_family_that_mixes_neighbours_falls_back_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="manyhead"):
        encoder = tiny("mpnet", {})
    assert not encoder.packed
    assert [record.getMessage() for record in caplog.records] == [
        "mpnet does not run packed; texts of equal length run together instead"
    ]


def test_self_test_notices_an_attention_that_mixes_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    from manyhead.encoder import packed_encoder

    encoder = tiny("bert", {})
    assert encoder.self_test(100) < 1e-5
    joined = lambda lengths, device, capture=False: packed_layout([sum(lengths)], device, capture=capture)  # noqa: E731
    monkeypatch.setattr(packed_encoder, "packed_layout", joined)
    assert encoder.self_test(100) > 1e-3


def test_layout_is_the_packed_order_where_lengths_are_equal() -> None:
    layout = packed_layout([6, 6, 6], torch.device("cpu"))
    assert layout.gather is None
    assert [(bucket.count, bucket.width, bucket.mask) for bucket in layout.buckets] == [(3, 6, None)]


def test_bf16_autocast_stays_near_fp32() -> None:
    encoder = tiny("bert", {}).eval()
    encoder.requires_grad_(False)
    ids = tokens(LENGTHS)
    exact = encoder(ids, torch.zeros_like(ids), LENGTHS).hidden
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(ids, torch.zeros_like(ids), LENGTHS).hidden
    assert float((exact - rough.float()).abs().max()) < 0.1


def test_training_twice_with_dropout_gives_the_same_bits() -> None:
    gradients = []
    for _ in range(2):
        encoder = tiny("bert", {})
        for module in encoder.modules():
            if isinstance(module, Dropout):
                module.p = 0.2
        encoder.sparse_embedding_gradients(True)
        encoder.train()
        torch.manual_seed(5)
        ids = tokens(LENGTHS)
        encoder(ids, torch.zeros_like(ids), LENGTHS).hidden.square().sum().backward()
        found = [parameter.grad for parameter in encoder.parameters() if parameter.grad is not None]
        gradients.append([gradient.to_dense() if gradient.is_sparse else gradient for gradient in found])
    assert len(gradients[0]) > 20
    for first, second in zip(*gradients, strict=True):
        assert torch.equal(first, second)


def test_auto_model_is_what_we_compare_with() -> None:
    """The same configuration through transformers alone gives the same states for one sequence."""
    config = config_of("bert", {})
    torch.manual_seed(0)
    theirs = AutoModel.from_config(copy.deepcopy(config), attn_implementation="sdpa").eval()
    encoder = tiny("bert", {}).eval()
    weights = {name: value for name, value in theirs.state_dict().items() if not name.startswith("pooler")}
    encoder.model.load_state_dict(weights)
    ids = tokens([11])
    expected = theirs(input_ids=ids[None]).last_hidden_state[0]
    torch.testing.assert_close(encoder(ids, torch.zeros_like(ids), [11]).hidden, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_type", [*PACKED, *UNPACKED])
def test_noise_is_added_to_what_enters_the_first_layer(model_type: str) -> None:
    encoder = tiny(model_type, {**PACKED, **UNPACKED}[model_type], layer=0).eval()
    ids = tokens(LENGTHS)
    noise = torch.randn(len(ids), encoder.width, generator=torch.Generator().manual_seed(3))
    plain = encoder(ids, torch.zeros_like(ids), LENGTHS).hidden
    torch.testing.assert_close(encoder(ids, torch.zeros_like(ids), LENGTHS, noise=noise).hidden, plain + noise)
    torch.testing.assert_close(encoder(ids, torch.zeros_like(ids), LENGTHS).hidden, plain)


@pytest.mark.parametrize("model_type", [*PACKED, *UNPACKED])
def test_no_noise_is_noise_of_zero_and_its_gradient_stays_in_its_sequence(model_type: str) -> None:
    encoder = tiny(model_type, {**PACKED, **UNPACKED}[model_type]).eval()
    ids = tokens(LENGTHS)
    segments = torch.zeros_like(ids)
    noise = torch.zeros(len(ids), encoder.width, requires_grad=True)
    found = encoder(ids, segments, LENGTHS, noise=noise).hidden
    assert torch.equal(found, encoder(ids, segments, LENGTHS).hidden)
    (gradient,) = torch.autograd.grad((found.split(LENGTHS)[3] ** 3).sum(), noise)
    for place, part in enumerate(gradient.split(LENGTHS)):
        assert bool((part.abs().sum(1) > 0).all()) is (place == 3)


@pytest.mark.parametrize("packed", [True, False])
def test_the_gradient_of_noise_is_that_of_the_embedding_modules_output(packed: bool) -> None:
    """Against the layers run by hand on the embeddings, sequence by sequence; and against finite differences."""
    encoder = tiny("bert", {}).eval().double()
    encoder.use_packed(packed)
    ids = tokens(LENGTHS)
    segments = (ids % 2).long()
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(len(ids), encoder.width, generator=generator, dtype=torch.float64) * 0.1
    weights = torch.randn(noise.shape, generator=generator, dtype=torch.float64)

    def loss(given: Tensor) -> Tensor:
        return (encoder(ids, segments, LENGTHS, noise=given).hidden * weights).sum()

    noise.requires_grad_()
    (found,) = torch.autograd.grad(loss(noise), noise)

    bert: Any = copy.deepcopy(encoder.model)
    bert.set_attn_implementation("eager")
    entering = [
        bert.embeddings(input_ids=row[None], token_type_ids=kinds[None])[0]
        for row, kinds in zip(ids.split(LENGTHS), segments.split(LENGTHS), strict=True)
    ]
    states = (torch.cat(entering) + noise).detach().requires_grad_()
    hidden = [bert.encoder(part[None], attention_mask=None).last_hidden_state[0] for part in states.split(LENGTHS)]
    (expected,) = torch.autograd.grad((torch.cat(hidden) * weights).sum(), states)
    torch.testing.assert_close(found, expected)

    step = torch.randn(noise.shape, generator=generator, dtype=torch.float64) * 1e-5
    with torch.no_grad():
        difference = (loss(noise + step) - loss(noise - step)) / 2
    torch.testing.assert_close((found * step).sum(), difference, rtol=1e-5, atol=0.0)


def test_noise_needs_an_embedding_module() -> None:
    encoder = tiny("bert", {})
    bert: Any = encoder.model
    bert.words = bert.embeddings
    del bert.embeddings
    ids = tokens([3])
    with pytest.raises(UsageError, match=r"encoder \(bert\) has no embedding module"):
        encoder(ids, ids * 0, [3], noise=torch.zeros(3, 32))


@pytest.mark.parametrize("packed", [True, False])
def test_another_layer_can_be_asked_for(packed: bool) -> None:
    encoder, last = tiny("bert", {}, layer=1).eval(), tiny("bert", {}).eval()
    encoder.use_packed(packed)
    ids = tokens(LENGTHS)
    expected = last(ids, ids * 0, LENGTHS).hidden
    torch.testing.assert_close(encoder(ids, ids * 0, LENGTHS, layer=3).hidden, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(encoder(ids, ids * 0, LENGTHS).hidden, expected, atol=1e-2)
