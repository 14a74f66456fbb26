"""Where and in which precision to run: decided once, before the first step, from recipe and hardware alone."""

import ctypes
import os
import platform
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from manyhead.errors import UsageError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 30
_INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


@dataclass(frozen=True)
class Hardware:
    """What a run was decided to use."""

    device: str
    precision: str
    threads: int

    @property
    def autocast(self) -> torch.dtype | None:
        """The type of what the encoder's products give; None for fp32."""
        half = self.precision == "bf16" or (self.precision == "int8" and _multiplies_bf16(self.device))
        return torch.bfloat16 if half else None

    def describe(self) -> dict[str, str | int]:
        """For the run's record: what was decided and what it was decided on."""
        name = torch.cuda.get_device_name() if self.device == "cuda" else _cpu("model name") or platform.machine()
        return {
            "device": self.device,
            "device_name": name,
            "precision": self.precision,
            "threads": self.threads,
            "cores": os.cpu_count() or 1,
            "platform": platform.platform(),
        }


def choose_hardware(device: str, precision: str, threads: int | None) -> Hardware:
    """Resolves ``auto``, and sets torch's thread count.

    bf16 is chosen only where the hardware multiplies it faster than fp32: elsewhere it is far slower. int8, which is
    for inference, is never chosen. Raises `UsageError` for a device that is not there, and for int8 where it cannot be.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present[device]:
        there = ", ".join(name for name, available in present.items() if available)
        raise UsageError(f"device: {device} is not available here; expected one of {there}; use device: auto")
    if precision == "auto":
        precision = "bf16" if _multiplies_bf16(device) else "fp32"
    if precision == "int8":
        _check_int8(device)
    count = threads or _cores()
    torch.set_num_threads(count)
    if device == "cpu":
        _keep_freed_memory()
    return Hardware(device, precision, count)


def _keep_freed_memory() -> None:
    """Asks glibc to keep what is freed, where the process runs on it.

    A step frees hundreds of megabytes and takes them again. Given back to the system in between, each page of them is
    cleared anew when it is first touched, which is a tenth of a step. The process's peak stays what it is.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Older ones take no more than 32 MiB; with neither, the second call would make things worse.
        if mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES) or mallopt(_M_MMAP_THRESHOLD, 32 << 20):
            mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _check_int8(device: str) -> None:
    """Raises `UsageError` where products of 8-bit integers would be slow, or not exact for lack of instructions."""
    here = f"precision: int8 is not available on {device}"
    if device != "cpu":
        raise UsageError(f"{here}; expected device cpu; use bf16 or fp32 there")
    if _INT8_FLAGS.isdisjoint(_cpu("flags").split()):
        raise UsageError(f"{here}: this processor has no VNNI instructions; use bf16 or fp32")
    if not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        raise UsageError(f"{here}: this torch {torch.__version__} was built without it; use bf16 or fp32")


def _multiplies_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu":
        return cpu_multiplies_bf16(_cpu("vendor_id"), _cpu("flags").split())
    return False


def cpu_multiplies_bf16(vendor: str, flags: Collection[str]) -> bool:
    """Whether bf16 products are faster than fp32 ones on a processor of ``vendor`` with these ``flags`` of Linux.

    Matrix units (AMX) are. The vector instruction alone is on AMD's processors (4 to 5 times on Zen 5), while Intel's
    issue it at a fraction of the rate of fp32 ones (half as fast on a Xeon of family 6, model 207).
    """
    return "amx_bf16" in flags or ("avx512_bf16" in flags and vendor != "GenuineIntel")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu(field: str) -> str:
    """A field of the first processor as Linux describes it; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found = (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field)
    return next(found, "")
