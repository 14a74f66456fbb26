"""Times of single operations: what a step could be made of."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpu_cases.answers import Answer, needs_cuda
from gpu_cases.work import Bench, lengths_of
from manyhead.encoder.attention import packed_layout
from manyhead.encoder.fused_attention import Attention
from manyhead.encoder.varlen_attention import KERNELS, Sequences, VarlenAttention
from manyhead.packed import offsets_of
from manyhead.training.device_rows import DeviceRows, pcgrad_weights


def ceilings(bench: Bench) -> Iterator[Answer]:
    """The rate of bf16 products and of copies."""
    size = 512 if bench.quick else 8192
    one, other = (torch.randn(size, size, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    product = bench.milliseconds(lambda: one @ other)
    source = torch.empty((1 << 20) if bench.quick else (1 << 31), dtype=torch.int8, device=bench.device)
    target = torch.empty_like(source)
    copy = bench.milliseconds(lambda: target.copy_(source))
    rate = f"{2 * size**3 / product / 1e9:.0f} TFLOP/s"
    yield Answer(f"bf16 product of {size}", rate, note="shares below are of 790")
    yield Answer("copy, read and written", f"{2 * source.numel() / copy / 1e9:.2f} TB/s")


def attention(bench: Bench) -> Iterator[Answer]:
    """Forward and backward of one layer's attention at several numbers of tokens, dropout .1."""
    width, heads = bench.sizes.config["hidden_size"], bench.sizes.config["num_attention_heads"]
    for tokens in bench.sizes.attention_tokens:
        lengths = [int(each) for each in lengths_of(max(2, tokens // 28), 28, 0)]
        count = sum(lengths)
        qkv = torch.randn(count, 3 * width, device=bench.device).bfloat16()
        grads = torch.randn(count, width, device=bench.device).bfloat16()
        offsets = torch.tensor(offsets_of(lengths), dtype=torch.int32, device=bench.device)
        sequences = Sequences(offsets, 64)
        ways: dict[str, Attention | VarlenAttention] = {
            "buckets": Attention(packed_layout(sorted(lengths), bench.device), heads, 0.1, torch.float32)
        }
        for name in ("efficient", "flash") if bench.is_cuda else ("reference",):
            ways[name] = VarlenAttention(sequences, heads, 0.1, torch.float32, KERNELS[name])
        times = {name: bench.milliseconds(partial(there_and_back, way, qkv, grads)) for name, way in ways.items()}
        times["SDPA, padded, no dropout"] = bench.milliseconds(padded(lengths, heads, width, bench))
        best = min(times, key=lambda name: times[name])
        cells = ", ".join(f"{name} {1e3 * time:.0f}" for name, time in times.items())
        yield Answer(f"attention, {count} tokens, us", cells, note=f"fastest: {best}")


def there_and_back(way: Attention | VarlenAttention, qkv: Tensor, grads: Tensor) -> None:
    """Forward and backward."""
    _, kept = way.attend(qkv)
    way.backward(grads, kept)


def padded(lengths: list[int], heads: int, width: int, bench: Bench) -> Callable[[], None]:
    """The same by torch's attention on padded texts."""
    shape = (len(lengths), heads, max(lengths), width // heads)
    states = [torch.randn(shape, device=bench.device).bfloat16().requires_grad_() for _ in range(3)]
    mask = torch.arange(max(lengths), device=bench.device) < torch.tensor(lengths, device=bench.device)[:, None]

    def run() -> None:
        context = F.scaled_dot_product_attention(*states, attn_mask=mask[:, None, None, :])
        torch.autograd.grad(context, states, torch.ones_like(context))

    return run


def weight_gradients(bench: Bench) -> Iterator[Answer]:
    """A matrix's gradients by task: a product for each task, or one grouped product."""
    needs_cuda(bench)
    for tokens in (768, 16_384):
        width, inner, tasks = 768, 3072, 3
        left = torch.randn(tokens, inner, device=bench.device).bfloat16()
        right = torch.randn(tokens, width, device=bench.device).bfloat16()
        own = tokens // tasks // 8 * 8
        stops = [own, 2 * own, tokens]
        spans = [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]
        rows = torch.empty(tasks, inner, width, dtype=torch.bfloat16, device=bench.device)
        offsets = torch.tensor(stops, dtype=torch.int32, device=bench.device)

        def apart(left: Tensor = left, right: Tensor = right, rows: Tensor = rows, spans: list[slice] = spans) -> None:
            for row, span in zip(rows, spans, strict=True):
                torch.mm(left[span].t(), right[span], out=row)

        def grouped(left: Tensor = left, right: Tensor = right, offsets: Tensor = offsets) -> Tensor:
            return F.grouped_mm(left.t(), right, offs=offsets)

        apart()
        error = float((grouped().float() - rows.float()).abs().max() / rows.float().abs().max())
        one, other = bench.milliseconds(apart), bench.milliseconds(grouped)
        whole = bench.milliseconds(partial(torch.mm, left.t(), right))
        cells = f"apart {1e3 * one:.0f}, grouped {1e3 * other:.0f}, one for all {1e3 * whole:.0f}"
        yield Answer(
            f"weight gradient {inner} x {width}, 3 tasks, {tokens} tokens, us", cells, note=f"differ {error:.0e}"
        )


def update(bench: Bench) -> Iterator[Answer]:
    """AdamW on all parameters, and surgery on the tasks' rows of them, by the number of tasks."""
    width = bench.sizes.config["hidden_size"]
    count = 2 if bench.quick else 144
    matrices = [nn.Parameter(torch.randn(width, width, device=bench.device)) for _ in range(count)]
    words = nn.Parameter(torch.randn(bench.sizes.config["vocab_size"], width, device=bench.device))
    optimizer = torch.optim.AdamW([*matrices, words], fused=True)
    for each in (*matrices, words):
        each.grad = torch.randn_like(each)
    size = sum(each.numel() for each in (*matrices, words))
    taken = bench.milliseconds(optimizer.step)
    yield Answer(f"AdamW, {size / 1e6:.0f} M parameters", f"{taken:.2f} ms", note=f"{28 * size / taken / 1e9:.2f} TB/s")
    tokens = 224
    for tasks in (3,) if bench.quick else (3, 10):
        rows = DeviceRows(tasks, [*matrices, words], frozenset(matrices), words, torch.bfloat16)
        names = [f"task{number}" for number in range(tasks)]
        rows.start(names)
        left = torch.randn(tasks * tokens, width, device=bench.device).bfloat16()
        spans = {name: slice(place * tokens, (place + 1) * tokens) for place, name in enumerate(names)}
        for each in matrices:
            rows.add_products([each], left, left, spans)
        for name in names:
            ids = torch.randint(len(words), (1, tokens), device=bench.device)
            gradient = torch.sparse_coo_tensor(ids, left[spans[name]].float(), words.shape, check_invariants=False)
            rows.add(words, name, gradient)
        orders = torch.arange(tasks, device=bench.device).repeat(tasks, 1)
        gramian = rows.gramian()
        times = [
            bench.milliseconds(rows.gramian),
            bench.milliseconds(partial(pcgrad_weights, gramian, orders)),
            bench.milliseconds(partial(rows.combine, torch.ones(tasks, dtype=torch.float64, device=bench.device))),
        ]
        cells = ", ".join(f"{name} {time:.2f}" for name, time in zip(("Gramian", "weights", "sum"), times, strict=True))
        yield Answer(f"surgery on {size / 1e6:.0f} M parameters, {tasks} tasks, ms", cells)
        del rows
