"""A loss that is NaN at one step, and two processes in one folder."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from fault_cases.children import Child, run
from fault_cases.sides import Reference, Side, finite_in_memory, weights_of
from fault_cases.work import SAVE_EVERY

NAN_STEP = 7
SHARED_STEP = SAVE_EVERY + 2


@dataclass(frozen=True)
class Nan:
    """What came of a NaN in the loss of one step.

    ``finite`` of ``parameters`` were finite at the end in memory; ``finite_checkpoints`` of ``checkpoints`` on the
    disk. ``losses`` as logged. ``repaired``: the run, gone on with and no NaN, ends as if there had been none.
    """

    code: int
    told: str
    finite: int
    parameters: int
    finite_checkpoints: int
    checkpoints: int
    losses: list[float]
    repaired: bool


@dataclass(frozen=True)
class Shared:
    """What came of a second process in the folder of one that runs: each one's exit code and last line.

    ``same``: the folder's last weights are those of one process alone.
    """

    first_code: int
    second_code: int
    first_told: str
    second_told: str
    same: bool


def nan(side: Side, reference: Reference, folder: Path) -> Nan:
    """A NaN in the loss of step `NAN_STEP`, and then the run again without it."""
    at = folder / "nan"
    ended = run(lambda: side.train(at, nan_at=NAN_STEP), folder / "out")
    memory = finite_in_memory(ended.printed)
    if memory is None:
        raise RuntimeError(f"{side.name}: no NaN was planted\n{ended.printed}")
    kept = side.checkpoints(at)
    finite = [all(bool(torch.isfinite(each).all()) for each in weights_of(side, path).values()) for path in kept]
    losses = side.logged_losses(at)
    lines = [line for line in ended.printed.splitlines() if line.strip() and not line.startswith("finite parameters")]
    again = run(lambda: side.train(at), folder / "out")
    repaired = again.code == 0 and reference.is_met_by(side, at)
    return Nan(ended.code, lines[-1], *memory, sum(finite), len(kept), losses, repaired)


def two_processes(side: Side, reference: Reference, folder: Path) -> Shared:
    """A second process, started as the first, while that is between its first two saves."""
    at, signs = folder / "shared", folder / "shared-signs"
    signs.mkdir(parents=True)

    def slow(step: int) -> None:
        if step == SHARED_STEP:
            (signs / "first-runs").touch()
            _wait_for(signs / "second-runs", 1.5 * reference.seconds)

    first = Child(lambda: side.train(at, slow), folder / "out")
    if not _wait_for(signs / "first-runs", 30.0):
        raise RuntimeError(f"{side.name}: the first process did not come to step {SHARED_STEP}")
    second = Child(lambda: side.train(at, lambda _: (signs / "second-runs").touch()), folder / "out")
    first_ended, second_ended = first.wait(), second.wait()
    same = bool(side.checkpoints(at)) and reference.is_met_by(side, at)
    return Shared(first_ended.code, second_ended.code, first_ended.last_line, second_ended.last_line, same)


def _wait_for(sign: Path, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not sign.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True
