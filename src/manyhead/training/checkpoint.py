"""Checkpoints: a folder a step with weights, optimiser state and a manifest that proves them whole.

``step-00000120/`` holds weights.safetensors, optimizer.safetensors, where there is any extras.safetensors (what
balancers, losses and regularisers keep), state.json and, written last, manifest.json with the size and sha256 of each.
It is published by one rename. Nothing is pickled.
"""

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from manyhead.errors import CheckpointError
from manyhead.faults import at
from manyhead.files import manifest_problem, new_folder, write_json, write_manifest, writing
from manyhead.model import load_weights, save_tensors
from manyhead.optimizers.state import restore_state, saved_state

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
EXTRAS_FILE = "extras.safetensors"
STATE = "state.json"
_NEEDED = (WEIGHTS, OPTIMIZER, STATE)

EXTRAS = "extras."
"""What the names of parameters begin with that only training has."""


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: its folder, the step over all stages, and the run's state at that step."""

    folder: Path
    step: int
    state: dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint of ``step`` will hold, copied: training may go on while it is written."""

    step: int
    weights: Mapping[str, Tensor]
    extras: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: Mapping[str, Any]


def take_snapshot(
    step: int, model: nn.Module, extras: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> Snapshot:
    """Copies weights, optimiser state and ``extras``, which is what only training has, to the CPU."""
    tensors, numbers = saved_state(optimizer, trained_parameters(model, extras))
    return Snapshot(
        step,
        _copied(model.state_dict()),
        _copied(extras.state_dict()),
        _copied(tensors),
        {"step": step, **state, "optimizer": numbers},
    )


def write_checkpoint(folder: Path, snapshot: Snapshot) -> Checkpoint:
    """Writes and publishes ``snapshot`` below ``folder``, in the place of a checkpoint of the same step.

    Raises `WriteError` where the disk is full or read-only; nothing half-written is left, and what was there stays.
    """
    final = checkpoint_folder(folder, snapshot.step)
    with writing(str(final)), new_folder(final, replace=True) as temporary:
        save_tensors(snapshot.weights, temporary / WEIGHTS)
        at("checkpoint: weights written", temporary)
        save_tensors(snapshot.optimizer, temporary / OPTIMIZER)
        at("checkpoint: optimiser written", temporary)
        if snapshot.extras:
            save_tensors(snapshot.extras, temporary / EXTRAS_FILE)
        write_json(temporary / STATE, snapshot.state)
        at("checkpoint: state written", temporary)
        write_manifest(temporary)
        at("checkpoint: manifest written", temporary)
    return Checkpoint(final, snapshot.step, dict(snapshot.state))


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def trained_parameters(model: nn.Module, extras: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by name: those of the model, and behind `EXTRAS` those that only training has."""
    return {
        **dict(model.named_parameters()),
        **{EXTRAS + name: parameter for name, parameter in extras.named_parameters()},
    }


def load_checkpoint(
    checkpoint: Checkpoint, model: nn.Module, extras: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Puts weights, extras and optimiser state back. Raises `CheckpointError` where they do not fit."""
    load_weights(model, checkpoint.folder / WEIGHTS)
    if extras.state_dict():
        load_weights(extras, checkpoint.folder / EXTRAS_FILE)
    numbers = checkpoint.state.get("optimizer")
    if numbers is None:
        raise CheckpointError(f"{checkpoint.folder / STATE}: has no 'optimizer'; start a new run by --out")
    tensors = load_file(checkpoint.folder / OPTIMIZER)
    restore_state(optimizer, trained_parameters(model, extras), tensors, numbers)


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` is, or would be."""
    return folder / f"step-{step:08d}"


def newest_valid(
    folder: Path, run: str, best_of: Callable[[Checkpoint], int | None]
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint of ``run`` that can be gone on from, and a line about each newer one that cannot.

    It and the one that was the best when it was written, the step of which ``best_of`` tells, have to be whole.
    """
    problems: list[str] = []
    for path in reversed(checkpoint_folders(folder)):
        problem = damage(path)
        state = read_state(path) if problem is None else {}
        if problem is None and state.get("run") != run:
            problem = "it is another run's"
        if problem is None:
            found = Checkpoint(path, int(state["step"]), state)
            best = best_of(found)
            at_best = path if best is None else checkpoint_folder(folder, best)
            of_best = None if at_best == path else damage(at_best)
            if of_best is None:
                return found, problems
            problem = f"{at_best.name}, the best one by then, is damaged: {of_best}"
        problems.append(f"{path}: {problem}")
    return None, problems


def checkpoint_folders(folder: Path) -> list[Path]:
    """All published checkpoints below ``folder``, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    problem = manifest_problem(path, _NEEDED)
    if problem is None and checkpoint_folder(path.parent, read_state(path)["step"]) != path:
        return f"{STATE} is that of another step"
    return problem


def read_state(path: Path) -> dict[str, Any]:
    """The state of a checkpoint."""
    return cast("dict[str, Any]", json.loads((path / STATE).read_text(encoding="utf-8")))


def rotate(
    folder: Path, newest: int, keep: int, best_of: Callable[[Checkpoint], int | None], pinned: Collection[int] = ()
) -> None:
    """Removes all but the ``keep`` newest checkpoints and those that were the best when one of these was written.

    So each checkpoint that is kept can be gone on from. ``newest`` is the step of the newest: those behind it, which
    could not be gone on from, are removed. ``best_of`` tells the step of the best; the steps ``pinned`` stay.
    """
    found = [path for path in checkpoint_folders(folder) if path <= checkpoint_folder(folder, newest)][-keep:]
    states = {path: read_state(path) for path in found if manifest_problem(path, (STATE,), others=False) is None}
    bests = {best_of(Checkpoint(path, int(state["step"]), state)) for path, state in states.items()}
    kept = {*found, *(checkpoint_folder(folder, step) for step in (*bests, *pinned) if step is not None)}
    for path in checkpoint_folders(folder):
        if path not in kept:
            doomed = path.with_name(f".tmp-old-{path.name}")
            path.rename(doomed)
            at("checkpoint: an old one is being removed", doomed)
            shutil.rmtree(doomed, ignore_errors=True)
