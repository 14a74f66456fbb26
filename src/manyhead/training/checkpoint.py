"""Checkpoints: a folder a step with weights, optimiser state and a manifest that proves them whole.

``step-00000120/`` holds weights.safetensors, optimizer.safetensors, where there is any extras.safetensors (what
balancers, losses and regularisers keep), state.json and, written last, manifest.json with the size and sha256 of each.
It is published by one rename. Nothing is pickled.
"""

import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from manyhead.errors import CheckpointError
from manyhead.files import new_folder, sha256_of, write_json, writing
from manyhead.model import load_weights, save_weights
from manyhead.optimizers.state import restore_state, saved_state

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
EXTRAS_FILE = "extras.safetensors"
STATE = "state.json"
MANIFEST = "manifest.json"
_NEEDED = (WEIGHTS, OPTIMIZER, STATE)

EXTRAS = "extras."
"""What the names of parameters begin with that only training has."""


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: its folder, the step over all stages, and the run's state at that step."""

    folder: Path
    step: int
    state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    extras: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    state: dict[str, Any],
) -> Checkpoint:
    """Writes and publishes the checkpoint of ``step`` below ``folder``, in the place of a damaged one that is there.

    ``extras`` is what only training has. Raises `WriteError` where the disk is full or read-only; nothing half-written
    is left.
    """
    tensors, numbers = saved_state(optimizer, trained_parameters(model, extras))
    state = {"step": step, **state, "optimizer": numbers}
    final = checkpoint_folder(folder, step)
    with writing(str(final)):
        shutil.rmtree(final, ignore_errors=True)
    with writing(str(final)), new_folder(final) as temporary:
        save_weights(model, temporary / WEIGHTS)
        save_file(tensors, temporary / OPTIMIZER, metadata={"format": "pt"})
        if extras.state_dict():
            save_weights(extras, temporary / EXTRAS_FILE)
        write_json(temporary / STATE, state)
        manifest = {
            path.name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in sorted(temporary.iterdir())
        }
        write_json(temporary / MANIFEST, {"files": manifest})
    return Checkpoint(final, step, state)


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


def newest_valid(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose manifest holds, and a line about each newer one that is damaged."""
    problems: list[str] = []
    for path in reversed(checkpoint_folders(folder)):
        problem = damage(path)
        if problem is None:
            state = read_state(path)
            return Checkpoint(path, int(state["step"]), state), problems
        problems.append(f"{path}: {problem}; the checkpoint before it is used")
    return None, problems


def checkpoint_folders(folder: Path) -> list[Path]:
    """All published checkpoints below ``folder``, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    try:
        files = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name in {*_NEEDED, *files}:
            found = path / name
            if found.stat().st_size != files[name]["size"]:
                return f"{name} has {found.stat().st_size} bytes, the manifest says {files[name]['size']}"
            if sha256_of(found) != files[name]["sha256"]:
                return f"{name} is not what was written (sha256 differs)"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"the manifest or a file cannot be read ({error})"
    return None


def read_state(path: Path) -> dict[str, Any]:
    """The state of a checkpoint."""
    return cast("dict[str, Any]", json.loads((path / STATE).read_text(encoding="utf-8")))


def rotate(folder: Path, keep: int, best_of: Callable[[Checkpoint], int | None], pinned: Collection[int] = ()) -> None:
    """Removes all but the ``keep`` newest checkpoints and those that were the best when one of these was written.

    So each checkpoint that is kept can be gone on from. ``best_of`` tells the step of the best; the steps ``pinned``
    stay.
    """
    newest = checkpoint_folders(folder)[-keep:]
    bests = {best_of(Checkpoint(path, int(state["step"]), state)) for path in newest for state in [read_state(path)]}
    kept = {*newest, *(checkpoint_folder(folder, step) for step in (*bests, *pinned) if step is not None)}
    for path in checkpoint_folders(folder):
        if path not in kept:
            doomed = path.with_name(f".tmp-old-{path.name}")
            path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
