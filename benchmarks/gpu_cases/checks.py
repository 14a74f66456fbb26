"""Results before times: each way of running gives what the plain one gives."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from gpu_cases.answers import FAILED, Answer, needs_cuda
from gpu_cases.work import Bench, learner_of, steps_of
from manyhead.balancing.base import Signals
from manyhead.batching import pack
from manyhead.encoder.attention import packed_layout
from manyhead.encoder.fused_attention import Attention
from manyhead.encoder.varlen_attention import KERNELS, Sequences, VarlenAttention
from manyhead.packed import PackedBatch, offsets_of
from manyhead.training.device_step import DeviceOptions, DeviceStep
from manyhead.training.step import Learner, take_step
from manyhead.training.task_gradients import TaskGradients

WIDTH, HEADS = 256, 4


def check(what: str, difference: float, allowed: float) -> Answer:
    """A row that says how near two ways are, and whether that is near enough."""
    right = difference <= allowed
    return Answer(f"check: {what}", f"{difference:.1e}" if right else f"{FAILED} {difference:.1e}", f"<= {allowed:.0e}")


def difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((one.float() - other.float()).abs().max() / other.float().abs().max().clamp_min(1e-30))


def packed_batch(learner: Learner, bench: Bench, size: int = 8) -> PackedBatch:
    """A batch of all tasks on the device."""
    parts = steps_of(bench, size, 1)[0].parts
    stores = {part.task: learner.lesson.data[part.task].tokens for part in parts}
    return pack(parts, stores).to(bench.device)


def packed_is_padded(bench: Bench) -> Iterator[Answer]:
    """Packed states against transformers' own model on padded texts."""
    for precision, allowed in (("fp32", 1e-4), ("bf16", 5e-2)):
        model = learner_of(bench, precision=precision).lesson.model.eval()
        batch = packed_batch(learner_of(bench, precision=precision), bench)
        longest = max(batch.lengths)
        mask = torch.arange(longest, device=bench.device) < torch.tensor(batch.lengths, device=bench.device)[:, None]
        ids, segments = (torch.zeros(mask.shape, dtype=torch.int64, device=bench.device) for _ in range(2))
        ids[mask], segments[mask] = batch.input_ids, batch.segment_ids
        with torch.no_grad():
            states = model.token_states(batch)
            network = model.encoder.get_submodule("model")
            network.set_attn_implementation("sdpa")  # pyright: ignore[reportCallIssue]
            with torch.autocast(bench.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
                padded = network(input_ids=ids, token_type_ids=segments, attention_mask=mask.long()).last_hidden_state
        yield check(f"packed = transformers, padded, {precision}", difference(states, padded[mask]), allowed)


def efficient_is_buckets(bench: Bench) -> Iterator[Answer]:
    """Torch's memory-efficient kernel, or elsewhere the reference, against attention by buckets."""
    yield from kernel_is_buckets(bench, bench.kernel, torch.float32)
    if bench.is_cuda:
        yield from kernel_is_buckets(bench, bench.kernel, torch.bfloat16)


def flash_is_buckets(bench: Bench) -> Iterator[Answer]:
    """Torch's FlashAttention against attention by buckets."""
    needs_cuda(bench)
    yield from kernel_is_buckets(bench, "flash", torch.bfloat16)


def kernel_is_buckets(bench: Bench, name: str, dtype: torch.dtype) -> Iterator[Answer]:
    """Attention by offsets against attention by buckets: context and gradient; and the gradient under dropout."""
    lengths = [3, 17, 64, 1, 28, 28, 33]
    # A sequence is empty, as those that fill up a batch are.
    offsets = torch.tensor([*offsets_of(lengths), sum(lengths)], dtype=torch.int32, device=bench.device)
    sequences = Sequences(offsets, 64)
    torch.manual_seed(0)
    qkv = torch.randn(sum(lengths), 3 * WIDTH, device=bench.device).to(dtype)
    grads = torch.randn(sum(lengths), WIDTH, device=bench.device).to(dtype)
    buckets = Attention(packed_layout(lengths, bench.device), HEADS, 0.0, torch.float32)
    offsets_way = VarlenAttention(sequences, HEADS, 0.0, torch.float32, KERNELS[name])
    expected, kept = buckets.attend(qkv.clone())
    context, saved = offsets_way.attend(qkv)
    allowed = 1e-4 if dtype == torch.float32 else 5e-2
    label = f"{name}, {str(dtype)[6:]}"
    yield check(f"{label} = buckets", difference(context, expected), allowed)
    gradient = offsets_way.backward(grads, saved)
    yield check(f"{label} = buckets, gradient", difference(gradient, buckets.backward(grads, kept)), allowed)
    # With its masks fixed, attention is linear in the values, so <g, context> = <gradient of values, values>.
    dropping = replace(offsets_way, rate=0.3)
    context, saved = dropping.attend(qkv)
    to_values = dropping.backward(grads, saved)[:, 2 * WIDTH :].double()
    one = (grads.double() * context.double()).sum()
    other = (to_values * qkv[:, 2 * WIDTH :].double()).sum()
    scale = (grads.double() * context.double()).abs().sum()
    yield check(f"{label}: backward drops what forward dropped", float((one - other).abs() / scale), 1e-2)


def device_step_is_take_step(bench: Bench) -> Iterator[Answer]:
    """Three steps each way, without dropout, in fp32: the weights' difference as a share of their change."""
    for balancing in ("sum", "pcgrad"):
        yield check(f"device step = usual step, {balancing}", _moved_apart(bench, balancing, _device), 5e-2)


def captured_is_eager(bench: Bench) -> Iterator[Answer]:
    """Three captured steps against three that are not, with dropout: with other masks they would be about 1 apart."""
    needs_cuda(bench)
    for balancing in ("sum", "pcgrad"):
        weights: list[list[Tensor]] = []
        for capture in (False, True):
            learner = learner_of(bench, balancing)
            _take_all(DeviceStep(learner, 64, DeviceOptions(bench.kernel, capture=capture)), bench)
            weights.append([each.detach().clone() for each in learner.lesson.model.parameters()])
        start = [each.detach() for each in learner_of(bench, balancing).lesson.model.parameters()]
        yield check(f"captured = eager, bf16, dropout, {balancing}", _apart(weights[0], weights[1], start), 0.2)


def not_finite_changes_nothing(bench: Bench) -> Iterator[Answer]:
    """A step with a loss that is no number leaves all other weights as they are."""
    learner = learner_of(bench, "pcgrad", dropout=0.0)
    step = DeviceStep(learner, 64, DeviceOptions(bench.kernel, capture=bench.is_cuda, read_every=2))
    model, (one, other) = learner.lesson.model, steps_of(bench, 8, 2)
    step.take(one)
    broken = next(model.head("sst").parameters())
    with torch.no_grad():
        broken.fill_(torch.nan)
    before = [each.detach().clone() for each in model.parameters()]
    step.take(other)
    moved = max(
        float((one - each.detach()).abs().nan_to_num().max())
        for one, each in zip(before, model.parameters(), strict=True)
    )
    yield check("a step that is not finite changes nothing", moved, 0.0)


def rows_are_backwards(bench: Bench) -> Iterator[Answer]:
    """The rows that surgery works on against a backward for each task: their Gramian's largest difference."""
    gramians: list[Tensor] = []
    for together in (True, False):
        learner = learner_of(bench, "pcgrad", precision="fp32", dropout=0.0)
        model = learner.lesson.model.train()
        step = steps_of(bench, 8, 1)[0]
        counts = {part.task: len(part.examples) for part in step.parts}
        gradients = TaskGradients(learner.balancer, model, learner.clipping, together=together)
        signals = Signals(tuple(counts), None, None, 0, (0, "s", 0))
        gradients.add(
            lambda parts, learner=learner, counts=counts: learner.lesson.losses(parts, counts), step.parts, signals
        )
        gramians.append(gradients.rows.gramian())
    yield check("rows of one backward = a backward a task, Gramian", difference(*gramians), 1e-3)


def _device(bench: Bench, learner: Learner) -> None:
    _take_all(DeviceStep(learner, 64, DeviceOptions(bench.kernel)), bench)


def _take_all(step: DeviceStep, bench: Bench) -> None:
    for each in steps_of(bench, 8, 3):
        step.take(each)
        step.read()


def _moved_apart(bench: Bench, balancing: str, take: Callable[[Bench, Learner], None]) -> float:
    one, other, start = (learner_of(bench, balancing, precision="fp32", dropout=0.0) for _ in range(3))
    take(bench, one)
    for group in other.optimizer.param_groups:
        group["lr"] = float(group["lr"])
    for each in steps_of(bench, 8, 3):
        take_step(other, each)
    return _apart(*([each.detach() for each in which.lesson.model.parameters()] for which in (one, other, start)))


def _apart(one: list[Tensor], other: list[Tensor], start: list[Tensor]) -> float:
    """How far two sets of weights are from each other, as a share of how far the second is from the start."""
    apart = sum(float((a - b).double().square().sum()) for a, b in zip(one, other, strict=True))
    moved = sum(float((b - c).double().square().sum()) for b, c in zip(other, start, strict=True))
    return (apart / max(moved, 1e-30)) ** 0.5
