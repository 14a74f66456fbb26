"""Steps that the host only starts against `take_step`; padding that changes nothing; surgery in fixed memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from manyhead.balancing import pcgrad
from manyhead.batching import pack
from manyhead.build import new_model, plan_stages, read_parts
from manyhead.encoder.varlen_attention import KERNELS, VarlenAttention
from manyhead.errors import DivergedError, UsageError
from manyhead.packed import PackedBatch
from manyhead.recipe.load import load_recipe
from manyhead.schedules.base import Part, Step
from manyhead.training.device_rows import DeviceRows, pcgrad_weights
from manyhead.training.device_step import DeviceOptions, DeviceStep, device_states
from manyhead.training.observer import Observer
from manyhead.training.padded_batch import Buffers, rounded_up, shape_of
from manyhead.training.rows import Rows
from manyhead.training.step import Learner, StepResult, take_step
from tiny import tiny_encoder, tiny_recipe

TASKS = ("reviews", "questions", "sentences")
LONGEST = 40
CLASSES = {"reviews": True, "questions": True, "sentences": False}


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def learner_of(encoder: Path, pooling: str = "mean", precision: str = "fp32", **stage: Any) -> Learner:
    recipe = tiny_recipe(encoder, **{"clip_norm": 0.5, **stage})
    recipe["precision"] = precision
    recipe["encoder"] |= {"dropout": 0.0, "pooling": pooling, "projections": [{"kind": "dense"}]}
    recipe["tasks"]["reviews"]["head"] = {"kind": "linear", "dropout": 0.0}
    recipe["tasks"]["questions"]["head"] = {"kind": "hidden", "dropout": 0.0}
    if pooling != "mean":
        # New encoders have nearly the same first token for all texts: a cosine of 1, whose gradient is mostly rounding.
        recipe["tasks"]["sentences"] |= {"head": {"kind": "hidden", "dropout": 0.0}, "loss": "mse"}
    parts = read_parts(load_recipe(recipe), Observer())
    return plan_stages(parts, new_model(parts))[0].learner


def step_of(index: int, tasks: Sequence[str] = TASKS, size: int = 4) -> Step:
    parts = [Part(task, (np.arange(size + place) + 3 * index) % 24) for place, task in enumerate(tasks)]
    return Step(index, 0, tuple(parts))


def device_step(learner: Learner, read_every: int = 1) -> DeviceStep:
    return DeviceStep(learner, LONGEST, DeviceOptions("reference", read_every=read_every))


def weights(learner: Learner) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in learner.lesson.model.named_parameters()}


def assert_same_weights(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], close: float) -> None:
    for name, each in expected.items():
        torch.testing.assert_close(found[name], each, rtol=0, atol=close, msg=lambda m, name=name: f"{name}: {m}")


def packed(learner: Learner, step: Step) -> tuple[PackedBatch, dict[str, Tensor]]:
    data = learner.lesson.data
    batch = pack(step.parts, {part.task: data[part.task].tokens for part in step.parts})
    found = {part.task: torch.from_numpy(np.asarray(data[part.task].targets)[part.examples]) for part in step.parts}
    return batch, found


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
@pytest.mark.parametrize("balancing", ["sum", {"kind": "weighted", "weights": {"reviews": 0.3}}, "pcgrad"])
def test_five_steps_give_the_weights_of_five_usual_ones(encoder: Path, balancing: Any, pooling: str) -> None:
    optimizer = {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.1, "eps": 1e-4}
    one, other = (learner_of(encoder, pooling, balancing=balancing, optimizer=optimizer) for _ in range(2))
    on_device = device_step(one)
    norms: list[float] = []
    for index, tasks in enumerate([TASKS, TASKS[::-1], TASKS[:2], TASKS[1:], TASKS]):
        before = weights(other)
        for group in other.optimizer.param_groups:
            group["lr"] = 1e-3 * (index + 1) / 5
        on_device.take(step_of(index, tasks), (index + 1) / 5)
        expected = take_step(other, step_of(index, tasks))
        (found,) = on_device.read()
        assert found.losses == pytest.approx(expected.losses, rel=1e-4)
        assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-4)
        assert (found.examples, found.tokens, found.skipped) == (expected.examples, expected.tokens, False)
        moved = max(float((each - before[name]).abs().max()) for name, each in weights(other).items())
        assert moved > 1e-5
        assert_same_weights(weights(one), weights(other), 1e-3 * moved + 1e-6)
        # Rounding grows from step to step: each is compared from the same weights.
        other.lesson.model.load_state_dict(one.lesson.model.state_dict())
        norms.append(expected.grad_norm)
    assert max(norms) > 0.5  # some are clipped


def test_many_steps_are_read_at_once(encoder: Path) -> None:
    once, often = (learner_of(encoder, balancing="pcgrad") for _ in range(2))
    at_last, each = device_step(once, read_every=4), device_step(often)
    expected: list[StepResult] = []
    for index in range(4):
        assert not at_last.is_full
        at_last.take(step_of(index))
        each.take(step_of(index))
        expected += each.read()
    assert at_last.is_full
    assert at_last.read() == expected
    assert_same_weights(weights(once), weights(often), 0.0)


def test_bf16_products_give_near_weights(encoder: Path) -> None:
    rates = {"kind": "adamw", "lr": 1e-3, "eps": 1e-2}
    found: list[dict[str, Tensor]] = []
    for precision in ("fp32", "bf16"):
        learner = learner_of(encoder, precision=precision, balancing="pcgrad", optimizer=rates)
        on_device = device_step(learner)
        on_device.take(step_of(0))
        on_device.read()
        found.append(weights(learner))
    assert_same_weights(found[1], found[0], 2e-4)


def poisoned(learner: Learner) -> None:
    """Makes each forward of the reviews' head give no number."""
    with torch.no_grad():
        next(learner.lesson.model.head("reviews").parameters()).fill_(float("nan"))


@pytest.mark.parametrize("balancing", ["sum", "pcgrad"])
def test_a_step_that_is_not_finite_changes_nothing_and_ends_the_run(encoder: Path, balancing: str) -> None:
    learner = learner_of(encoder, balancing=balancing)
    on_device = device_step(learner, read_every=4)
    on_device.take(step_of(0))
    good = weights(learner)["heads.task_reviews.dense.weight"]
    poisoned(learner)
    before = weights(learner)
    on_device.take(step_of(1))
    with torch.no_grad():
        learner.lesson.model.get_parameter("heads.task_reviews.dense.weight").copy_(good)
    on_device.take(step_of(2))  # finite, but behind one that was not
    after = weights(learner)
    del before["heads.task_reviews.dense.weight"]
    assert_same_weights(after, before, 0.0)
    steps = {int(state["step"]) for state in learner.optimizer.state.values()}
    assert steps == {1}
    with pytest.raises(DivergedError, match="step 2: the loss of reviews"):
        on_device.read()


def test_a_step_that_is_skipped_leaves_the_next_one_as_it_is(encoder: Path) -> None:
    learner = learner_of(encoder, on_nonfinite="skip")
    on_device = device_step(learner, read_every=2)
    good = weights(learner)
    poisoned(learner)
    on_device.take(step_of(0))
    with torch.no_grad():
        for name, each in learner.lesson.model.named_parameters():
            each.copy_(good[name])
    on_device.take(step_of(1))
    first, second = on_device.read()
    assert first.skipped
    assert not second.skipped
    other = learner_of(encoder)
    take_step(other, step_of(1))
    assert_same_weights(weights(learner), weights(other), 1e-4)


def test_steps_have_to_be_read(encoder: Path) -> None:
    on_device = device_step(learner_of(encoder), read_every=1)
    on_device.take(step_of(0))
    with pytest.raises(ValueError, match="not been read"):
        on_device.take(step_of(1))


@pytest.mark.parametrize(
    "stage",
    [
        {"balancing": "gradvac"},
        {"clip_by": "task"},
        {"accumulation": 2},
        {"optimizer": "sgd"},
        {"regularisers": [{"kind": "l1", "weight": 0.1}]},
    ],
)
def test_what_it_cannot_do_is_refused(encoder: Path, stage: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="take the usual steps"):
        device_step(learner_of(encoder, **stage))


def test_added_tokens_change_no_state_and_get_no_gradient(encoder: Path) -> None:
    learner = learner_of(encoder)
    model = learner.lesson.model
    batch, targets = packed(learner, step_of(0))
    shape = shape_of(batch, LONGEST)
    buffers = Buffers(shape, CLASSES, torch.device("cpu"))
    buffers.fill(batch, targets, torch.zeros(3, 3, dtype=torch.int64))
    padded = buffers.batch
    assert shape.tokens > batch.n_tokens
    reached: list[Tensor] = []
    embeddings: Any = model.encoder.get_submodule("model.embeddings")
    hook = embeddings.register_forward_hook(lambda module, args, out: reached.append(out) or out.retain_grad())

    def attention_of(heads: int, rate: float, dtype: torch.dtype) -> VarlenAttention:
        return VarlenAttention(padded.sequences, heads, rate, dtype, KERNELS["reference"])

    states = device_states(model, padded, attention_of)
    hook.remove()
    own = torch.cat(
        [
            torch.arange(wide.start, wide.start + route.stop - route.start)
            for route, wide in zip(batch.routes, shape.routes, strict=True)
        ]
    )
    torch.testing.assert_close(states[own], model.token_states(batch), rtol=1e-5, atol=1e-5)
    slopes = torch.sin(torch.arange(states[own].numel(), dtype=torch.float32)).view_as(states[own])
    (states[own] * slopes).sum().backward()
    gradient = reached[0].grad
    assert gradient is not None
    added = torch.ones(shape.tokens, dtype=torch.bool)
    added[own] = False
    assert torch.count_nonzero(gradient[0, added]) == 0
    assert torch.count_nonzero(gradient[0, own]) > 0
    for task, part in zip(TASKS, batch.parts, strict=True):
        assert torch.equal(padded.rows[task], part.sequences)
        assert torch.equal(padded.targets[task], targets[task])
    assert torch.equal(padded.first, torch.tensor([int(own[start]) for start in offsets(batch)[:-1]]))


def offsets(batch: PackedBatch) -> list[int]:
    return [0, *np.cumsum(batch.lengths).tolist()]


def test_batches_of_a_shape_come_into_the_same_memory(encoder: Path) -> None:
    learner = learner_of(encoder)
    (one, targets), (other, others) = packed(learner, step_of(1)), packed(learner, step_of(2))
    shape = shape_of(one, LONGEST)
    assert shape == shape_of(other, LONGEST)
    buffers = Buffers(shape, CLASSES, torch.device("cpu"))
    orders = torch.zeros(3, 3, dtype=torch.int64)
    buffers.fill(one, targets, orders)
    before = buffers.batch.input_ids.clone()
    buffers.fill(other, others, orders)
    assert not torch.equal(before, buffers.batch.input_ids)
    assert int(buffers.batch.sequences.offsets[-1]) == shape.tokens


def test_too_long_a_sequence_is_refused(encoder: Path) -> None:
    batch, _ = packed(learner_of(encoder), step_of(0))
    with pytest.raises(ValueError, match="the longest may have 2"):
        shape_of(batch, 2)


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 200, 1023, 1024, 1500, 16000, 16384, 40001])
def test_few_tokens_are_added(tokens: int) -> None:
    rounded = rounded_up(tokens)
    assert rounded >= tokens
    assert rounded - tokens < max(64, tokens / 16 + 1)
    assert rounded_up(rounded) == rounded


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pcgrad_on_the_device_is_pcgrad(size: int, always: bool) -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        gradients = torch.randn(size, 5, generator=generator, dtype=torch.float64)
        gradients[0] *= float(seed % 3 > 0)  # one that is 0
        orders = torch.stack([torch.randperm(size, generator=generator) for _ in range(size)])
        gramian = gradients @ gradients.t()
        expected = pcgrad.pcgrad_weights(gramian, orders.tolist(), always=always)
        torch.testing.assert_close(pcgrad_weights(gramian, orders, always=always), expected)


def test_rows_in_fixed_memory_are_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    words, small, matrix, bias = (
        torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((50, 6), (9, 6), (7, 6), (7,))
    )
    known, fixed = Rows(), DeviceRows(3, [words, small, matrix, bias], frozenset({matrix}), words, torch.float32)
    for _ in range(2):  # the second time in used memory
        ids = torch.randint(50, (12,), generator=generator)
        left, right = torch.randn(12, 7, generator=generator), torch.randn(12, 6, generator=generator)
        spans = {"a": slice(0, 3), "b": slice(3, 8), "c": slice(8, 12)}
        for rows in (known, fixed):
            rows.start(list(spans))
            for task, span in spans.items():
                for parameter, places in ((words, ids[span]), (small, ids[span] % 9)):
                    gradient = torch.sparse_coo_tensor(
                        places[None], right[span].clone(), parameter.shape, check_invariants=False
                    )
                    rows.add(parameter, task, gradient)
            rows.add_products([matrix], left, right, spans)
            rows.add_stacked([bias], torch.stack([left[span].sum(0) for span in spans.values()]))
        torch.testing.assert_close(fixed.gramian(), known.gramian(), rtol=1e-5, atol=1e-5)
        mix = torch.tensor([0.3, -2.0, 1.5], dtype=torch.float64)
        gradients: list[list[Tensor]] = []
        for rows in (known, fixed):
            for parameter in (words, small, matrix, bias):
                parameter.grad = None
            rows.combine(mix)
            gradients.append([each.grad.clone() for each in (words, small, matrix, bias) if each.grad is not None])
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-5)
