"""Where and in which precision to run: decided once, before the first step, from recipe and hardware alone."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from manyhead.errors import UsageError

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True)
class Hardware:
    """What a run was decided to use."""

    device: str
    precision: str
    threads: int

    @property
    def autocast(self) -> torch.dtype | None:
        """The type of the encoder's products; None for fp32."""
        return torch.bfloat16 if self.precision == "bf16" else None

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

    bf16 is chosen only where the hardware multiplies it: elsewhere it is far slower than fp32. Raises `UsageError` for
    a device that is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present[device]:
        there = ", ".join(name for name, available in present.items() if available)
        raise UsageError(f"device: {device} is not available here; expected one of {there}; use device: auto")
    if precision == "auto":
        precision = "bf16" if _multiplies_bf16(device) else "fp32"
    count = threads or _cores()
    torch.set_num_threads(count)
    return Hardware(device, precision, count)


def _multiplies_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu":
        return not _BF16_FLAGS.isdisjoint(_cpu("flags").split())
    return False


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
