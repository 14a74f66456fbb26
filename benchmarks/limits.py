"""What the machine can do at best: what a share of the limit is a share of."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

MATRIX = 1024
COPIED_BYTES = 1 << 27
"""More than the caches hold."""


def ceiling() -> dict[str, float]:
    """Rates of large matrix products in GFLOP/s, and of copying memory in GB/s, each byte read and written."""
    found: dict[str, float] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        matrices = [torch.randn(MATRIX, MATRIX).to(dtype) for _ in range(3)]
        found[f"{name}_gflop_per_second"] = 2 * MATRIX**3 / _seconds(_product, *matrices) / 1e9
    memory = [torch.ones(COPIED_BYTES, dtype=torch.uint8) for _ in range(2)]
    found["copy_gb_per_second"] = 2 * COPIED_BYTES / _seconds(torch.Tensor.copy_, *memory) / 1e9
    return found


def _product(left: Tensor, right: Tensor, out: Tensor) -> None:
    torch.mm(left, right, out=out)


def _seconds(run: Callable[..., object], *tensors: Tensor) -> float:
    """Median of ten runs, after two that are not counted."""
    times: list[float] = []
    for _ in range(12):
        began = time.perf_counter()
        run(*tensors)
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])
