"""Experts: each sequence has its own task's, in one forward of all; and each kind is what its formula says."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig

from manyhead.encoder import LowRankExperts
from manyhead.encoder.copied_encoder import CopiedEncoder
from manyhead.encoder.experts import low_rank
from manyhead.encoder.load import build_encoder
from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.encoder.pooling import Mean
from manyhead.encoder.trunk import Trunk
from manyhead.errors import UsageError
from manyhead.model import MultiTaskModel, load_weights, save_weights
from mixed import LENGTHS, gradients, loss_of, mixed_batch, perturb, tiny_model
from tiny import tiny_encoder

KINDS: dict[str, dict[str, Any]] = {
    "pal_top": {"kind": "pal_top", "width": 12, "heads": 3},
    "pal_top_stickland": {"kind": "pal_top", "variant": "stickland", "width": 12, "heads": 3},
    "pal_parallel": {"kind": "pal_parallel", "width": 12, "heads": 3},
    "low_rank": {"kind": "low_rank", "rank": 4, "alpha": 8.0},
    "low_rank_unfrozen": {"kind": "low_rank", "rank": 4, "freeze": False},
    "copies": {"kind": "copies"},
}
HOOKED = [name for name in KINDS if name != "copies"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("experts") / "encoder")


def copy_of(model: MultiTaskModel, task: str) -> nn.Module:
    assert isinstance(model.encoder, CopiedEncoder)
    return model.encoder.of(task)


def bert_of(model: MultiTaskModel) -> Any:
    """The transformers model inside."""
    assert isinstance(model.encoder, PackedEncoder)
    return model.encoder.model


def unpacked(model: MultiTaskModel) -> None:
    assert isinstance(model.encoder, PackedEncoder)
    model.encoder.use_packed(False)


def with_experts(encoder: Path, kind: str, **options: Any) -> MultiTaskModel:
    """A model whose experts are all different and none of which is without effect."""
    model = tiny_model(encoder, experts=KINDS[kind], projections=["dense"], **options)
    if kind == "copies":
        for number, task in enumerate(LENGTHS):
            perturb(copy_of(model, task), number, 0.02)
    else:
        perturb(model.experts)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_batch_is_each_task_alone_with_its_expert(encoder: Path, kind: str) -> None:
    model = with_experts(encoder, kind)
    mixed = model.run(mixed_batch())
    loss_of(mixed).backward()
    found = gradients(model)
    model.zero_grad()
    for task in LENGTHS:
        alone = model.run(mixed_batch([task]))
        torch.testing.assert_close(mixed.outputs[task], alone.outputs[task], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mixed.vectors[task], alone.vectors[task], atol=1e-5, rtol=1e-5)
        loss_of(alone).backward()
    expected = gradients(model)
    assert found.keys() == expected.keys()
    assert {name for name in found if model.task_of(name)} >= {
        name for name, _ in model.experts.named_parameters("experts")
    }
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_an_expert_reaches_its_own_task_only(encoder: Path, kind: str) -> None:
    model = with_experts(encoder, kind).eval()
    batch = mixed_batch(["questions", "sentences", "reviews"])
    before = model(batch)
    own = copy_of(model, "sentences") if kind == "copies" else model.experts.of("sentences")
    perturb(own, 7)
    after = model(batch)
    assert torch.equal(before["questions"], after["questions"])
    assert torch.equal(before["reviews"], after["reviews"])
    assert not torch.allclose(before["sentences"], after["sentences"], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_training_one_task_leaves_the_others_experts_as_they_are(encoder: Path, kind: str) -> None:
    model = with_experts(encoder, kind)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        loss_of(model.run(mixed_batch(["reviews"]))).backward()
        optimizer.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    assert {model.task_of(name) for name in changed} <= {None, "reviews"}
    assert any(model.task_of(name) == "reviews" and not name.startswith("heads") for name in changed)
    if kind == "low_rank":
        assert not any(name.startswith("encoder.") for name in changed)
    elif kind != "copies":
        assert any(name.startswith("encoder.") for name in changed)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_back_from_a_file(encoder: Path, kind: str, tmp_path: Path) -> None:
    model = with_experts(encoder, kind).eval()
    save_weights(model, tmp_path / "weights.safetensors")
    other = tiny_model(encoder, experts=KINDS[kind], projections=["dense"]).eval()
    assert not torch.allclose(other(mixed_batch())["reviews"], model(mixed_batch())["reviews"])
    load_weights(other, tmp_path / "weights.safetensors")
    for task, outputs in model(mixed_batch()).items():
        assert torch.equal(outputs, other(mixed_batch())[task])


@pytest.mark.parametrize("kind", KINDS)
def test_a_copied_model_has_experts_of_its_own(encoder: Path, kind: str) -> None:
    model = with_experts(encoder, kind).eval()
    before = model(mixed_batch())
    other = copy.deepcopy(model)
    assert all(torch.equal(outputs, before[task]) for task, outputs in other(mixed_batch()).items())
    perturb(other, 5)
    assert not torch.allclose(other(mixed_batch())["reviews"], before["reviews"], atol=1e-3)
    assert all(torch.equal(outputs, before[task]) for task, outputs in model(mixed_batch()).items())


@pytest.mark.parametrize("kind", HOOKED)
def test_an_expert_does_not_depend_on_which_other_tasks_there_are(encoder: Path, kind: str) -> None:
    together = tiny_model(encoder, experts=KINDS[kind]).state_dict()
    alone = tiny_model(encoder, ["questions"], experts=KINDS[kind], pooling="pooler").state_dict()
    own = [name for name in together if ".task_questions." in name]
    assert len(own) > 5
    assert all(torch.equal(together[name], alone[name]) for name in own)
    drawn = [name for name in own if name.startswith("experts") and bool(together[name].std() > 0)]
    assert drawn
    for name in drawn:
        assert not torch.equal(together[name], together[name.replace("questions", "reviews")])


def test_low_rank_experts_are_at_first_the_plain_encoder(encoder: Path) -> None:
    plain, routed = tiny_model(encoder), tiny_model(encoder, experts=KINDS["low_rank"])
    for task, outputs in plain(mixed_batch()).items():
        assert torch.equal(outputs, routed(mixed_batch())[task])


def test_low_rank_experts_are_the_encoder_with_updated_matrices(encoder: Path) -> None:
    model = with_experts(encoder, "low_rank").eval()
    found = model(mixed_batch())
    for task in LENGTHS:
        plain = tiny_model(encoder, projections=["dense"]).eval()
        for layer, own in zip(bert_of(plain).encoder.layer, model.experts.of(task).children(), strict=True):
            for name, place in low_rank.MATRICES.items():
                pair = own.get_submodule(name)
                update = pair.get_parameter("up") @ pair.get_parameter("down")
                weight = layer.get_submodule(place).get_parameter("weight")
                with torch.no_grad():
                    weight += 8.0 / 4 * update
        torch.testing.assert_close(found[task], plain(mixed_batch([task]))[task], atol=1e-5, rtol=1e-5)


def test_frozen_is_the_whole_encoder_and_nothing_else(encoder: Path) -> None:
    model = tiny_model(encoder, experts=KINDS["low_rank"], pooling="pooler", projections=["dense"])
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == model.fixed == {name for name, _ in model.named_parameters() if name.startswith("encoder.")}
    assert not tiny_model(encoder, experts=KINDS["low_rank_unfrozen"]).fixed


def test_copies_are_separate_models(encoder: Path) -> None:
    together = tiny_model(encoder, experts="copies", pooling="pooler", projections=["mlp"])
    separate = {task: tiny_model(encoder, [task], pooling="pooler", projections=["mlp"]) for task in LENGTHS}
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-2) for model in (together, *separate.values())]
    for _ in range(2):
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss_of(together.run(mixed_batch())).backward()
        for task, model in separate.items():
            loss_of(model.run(mixed_batch([task]))).backward()
        for optimizer in optimizers:
            optimizer.step()
    found = together(mixed_batch())
    for task, model in separate.items():
        torch.testing.assert_close(found[task], model(mixed_batch([task]))[task], atol=1e-4, rtol=1e-4)
    assert not [name for name, _ in together.named_parameters() if together.task_of(name) is None]


def test_copies_pool_layers_and_attention_as_one_encoder_does(encoder: Path) -> None:
    together = tiny_model(encoder, experts="copies", pooling="attention", layer=-2)
    plain = tiny_model(encoder, pooling="attention", layer=-2)
    for task, outputs in plain(mixed_batch()).items():
        torch.testing.assert_close(outputs, together(mixed_batch())[task], atol=1e-5, rtol=1e-5)
    noise = torch.randn(mixed_batch().n_tokens, 16)
    torch.testing.assert_close(
        plain.run(mixed_batch(), noise).outputs, together.run(mixed_batch(), noise).outputs, atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        plain.token_states(mixed_batch()), together.token_states(mixed_batch()), atol=1e-5, rtol=1e-5
    )
    with pytest.raises(UsageError, match="copies"):
        together.word_embeddings()


def test_copies_keep_the_layers_depths(encoder: Path) -> None:
    plain, copies = tiny_model(encoder).encoder, tiny_model(encoder, experts="copies").encoder
    found = copies.depths("encoder.")
    assert found == {
        f"encoder.copies.task_{task}.{name}": depth for task in LENGTHS for name, depth in plain.depths("").items()
    }
    assert set(found) == {name for name, _ in copies.named_parameters("encoder")}


@pytest.mark.parametrize("kind", HOOKED)
def test_experts_are_no_layers_of_the_encoder(encoder: Path, kind: str) -> None:
    plain, routed = tiny_model(encoder).encoder, tiny_model(encoder, experts=KINDS[kind]).encoder
    assert routed.depths("encoder.") == plain.depths("encoder.")
    assert routed.state_dict().keys() == plain.state_dict().keys()


# What the formulas say, written out over padded rows with a mask, on an encoder without experts.


def padded(task: str) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, segments and mask (n, L) of a task's sequences."""
    batch = mixed_batch([task])
    rows = batch.input_ids.split(list(batch.lengths))
    ids = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    segments = nn.utils.rnn.pad_sequence(list(batch.segment_ids.split(list(batch.lengths))), batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True)
    return ids, segments, mask.bool()


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor) -> Tensor:
    """Multi-head attention (n, L, F), head by head."""
    outputs = []
    for own_q, own_k, own_v in zip(q.chunk(heads, 2), k.chunk(heads, 2), v.chunk(heads, 2), strict=True):
        scores = own_q @ own_k.transpose(1, 2) / own_q.shape[2] ** 0.5
        outputs.append(scores.masked_fill(~mask[:, None, :], -torch.inf).softmax(2) @ own_v)
    return torch.cat(outputs, 2)


def ln(states: Tensor) -> Tensor:
    centred = states - states.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()


def literal_bert(model: Any, task: str, *, sandwich: bool = False, beside: Any = None) -> tuple[Tensor, Tensor]:
    """Padded states behind BERT's layers, and the mask. ``beside`` (states, layer, mask) goes into the last norms."""
    ids, segments, mask = padded(task)
    states = model.embeddings(input_ids=ids, token_type_ids=segments)
    norm = ln if sandwich else lambda found: found
    for number, layer in enumerate(model.encoder.layer):
        own = layer.attention.self
        x = norm(states)
        context = attention(own.query(x), own.key(x), own.value(x), own.num_attention_heads, mask)
        y = layer.attention.output.LayerNorm(states + norm(layer.attention.output.dense(context)))
        z = norm(layer.output.dense(F.gelu(layer.intermediate.dense(norm(y)))))
        extra = 0 if beside is None else beside(states, number, mask)
        states = layer.output.LayerNorm(y + z + extra)
    return states, mask


def literal_pal(pal: Any, small: Tensor, layer: int, heads: int, mask: Tensor) -> Tensor:
    q, k, v = pal.qkv[layer](small).chunk(3, 2)
    return attention(q, k, v, heads, mask)


@pytest.mark.parametrize("task", LENGTHS)
def test_parallel_pals_are_the_paper_written_out(encoder: Path, task: str) -> None:
    model = with_experts(encoder, "pal_parallel").eval()
    pal: Any = model.experts.of(task)
    plain = bert_of(tiny_model(encoder).eval())

    def beside(states: Tensor, layer: int, mask: Tensor) -> Tensor:
        return F.gelu(pal.up(literal_pal(pal, pal.down(states), layer, 3, mask)))

    states, mask = literal_bert(plain, task, beside=beside)
    torch.testing.assert_close(model.token_states(mixed_batch([task])), states[mask], atol=1e-5, rtol=1e-5)
    bare, _ = literal_bert(plain, task)
    assert not torch.allclose(bare, states, atol=1e-2)


@pytest.mark.parametrize("task", LENGTHS)
def test_a_pal_on_top_is_written_out(encoder: Path, task: str) -> None:
    model = with_experts(encoder, "pal_top").eval()
    pal: Any = model.experts.of(task)
    states, mask = literal_bert(bert_of(tiny_model(encoder).eval()), task)
    states = states + pal.up(literal_pal(pal, pal.down(states), 0, 3, mask))
    torch.testing.assert_close(model.token_states(mixed_batch([task])), states[mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("task", LENGTHS)
def test_the_six_layers_on_top_are_written_out(encoder: Path, task: str) -> None:
    model = with_experts(encoder, "pal_top_stickland").eval()
    pal: Any = model.experts.of(task)
    states, mask = literal_bert(bert_of(tiny_model(encoder).eval()), task)
    small = pal.down(states)
    for layer in range(6):
        small = pal.norm[layer](small + pal.out[layer](literal_pal(pal, small, layer, 3, mask)))
    torch.testing.assert_close(model.token_states(mixed_batch([task])), pal.up(small)[mask], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("task", LENGTHS)
def test_sandwich_norm_is_written_out(encoder: Path, task: str) -> None:
    model = tiny_model(encoder, sandwich_norm=True).eval()
    plain = tiny_model(encoder).eval()
    states, mask = literal_bert(bert_of(plain), task, sandwich=True)
    torch.testing.assert_close(model.token_states(mixed_batch([task])), states[mask], atol=1e-4, rtol=1e-4)
    assert model.state_dict().keys() == plain.state_dict().keys()
    unpacked(model)
    torch.testing.assert_close(model.token_states(mixed_batch([task])), states[mask], atol=1e-4, rtol=1e-4)


def test_sandwich_norm_reads_what_low_rank_experts_give(encoder: Path) -> None:
    model = tiny_model(encoder, sandwich_norm=True, experts=KINDS["low_rank"]).eval()
    perturb(model.experts)
    merged = tiny_model(encoder, sandwich_norm=True).eval()
    for layer, own in zip(bert_of(merged).encoder.layer, model.experts.of("reviews").children(), strict=True):
        for name, place in low_rank.MATRICES.items():
            pair = own.get_submodule(name)
            with torch.no_grad():
                layer.get_submodule(place).get_parameter("weight").add_(
                    2.0 * pair.get_parameter("up") @ pair.get_parameter("down")
                )
    batch = mixed_batch(["reviews"])
    torch.testing.assert_close(model.token_states(batch), merged.token_states(batch), atol=1e-4, rtol=1e-4)


def test_attention_pooling_reads_the_encoders_attention_beside_pals(encoder: Path) -> None:
    """Before a layer's own pal can act, what it receives of attention is that of the encoder without experts."""
    plain = tiny_model(encoder, pooling="attention", layer=1).eval()
    model = with_experts(encoder, "pal_parallel", pooling="attention", layer=1).eval()
    batch = mixed_batch()
    found = model.encoder(batch.input_ids, batch.segment_ids, batch.lengths, routes=batch.routes).received
    expected = plain.encoder(batch.input_ids, batch.segment_ids, batch.lengths).received
    assert found is not None
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", HOOKED)
def test_bf16_autocast_stays_near_fp32(encoder: Path, kind: str) -> None:
    model = tiny_model(encoder, experts=KINDS[kind]).eval()
    exact = model(mixed_batch())
    model.autocast = torch.bfloat16
    rough = model.run(mixed_batch())
    for task, outputs in exact.items():
        assert rough.outputs[task].dtype == torch.float32
        torch.testing.assert_close(rough.outputs[task], outputs, atol=0.1, rtol=0.1)
    loss_of(rough).backward()
    assert all(
        parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in model.experts.parameters()
    )


def trunk_of(model_type: str, **options: Any) -> Trunk:
    sizes = {"vocab_size": 99, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 1}
    config = AutoConfig.for_model(model_type, **{**sizes, "intermediate_size": 32, **options})
    encoder, _ = build_encoder(config, None, layer=-1, capture=False, max_tokens=40)
    return Trunk(encoder, Mean(), nn.Sequential())


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra"])
def test_experts_go_into_the_layers_of_berts_kin(model_type: str) -> None:
    trunk = low_rank.build(LowRankExperts(rank=2), trunk_of(model_type), ["one"], 0)
    assert sum(parameter.numel() for parameter in trunk.experts.parameters()) == 2 * 2 * (32 + 48 + 48)


@pytest.mark.parametrize(
    ("model_type", "options"),
    [("distilbert", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}), ("mpnet", {})],
)
def test_other_families_are_refused_by_name(model_type: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"low_rank: a {model_type} encoder .* bert, roberta or electra"):
        low_rank.build(LowRankExperts(), trunk_of(model_type, **options), ["one"], 0)


def test_an_encoder_that_does_not_run_packed_is_refused() -> None:
    trunk = trunk_of("bert")
    assert isinstance(trunk.encoder, PackedEncoder)
    trunk.encoder.use_packed(False)
    with pytest.raises(UsageError, match="needs an encoder that runs packed"):
        low_rank.build(LowRankExperts(), trunk, ["one"], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_without_an_expert_is_refused(encoder: Path, kind: str) -> None:
    model = tiny_model(encoder, ["reviews", "questions"], experts=KINDS[kind])
    with pytest.raises(ValueError, match="not sentences"):
        model.embed(mixed_batch(["reviews", "sentences"]))


def test_a_forward_without_routes_is_refused(encoder: Path) -> None:
    batch = mixed_batch()
    for kind in HOOKED:
        model = tiny_model(encoder, experts=KINDS[kind])
        for routes in ((), batch.routes[:-1], batch.routes[1:], batch.routes[::2]):
            with pytest.raises(ValueError, match="routes that cover all tokens"):
                model.encoder(batch.input_ids, batch.segment_ids, batch.lengths, routes=routes)


def test_low_rank_experts_have_no_second_derivative(encoder: Path) -> None:
    model = with_experts(encoder, "low_rank")
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(loss_of(model.run(mixed_batch())), list(model.experts.parameters()), create_graph=True)
