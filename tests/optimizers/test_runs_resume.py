"""Whole runs that are stopped and gone on with, by optimisers whose state is of every shape."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from manyhead.build import train
from manyhead.errors import StoppedError, UsageError
from manyhead.recipe.load import load_recipe
from manyhead.training.checkpoint import checkpoint_folders
from manyhead.training.observer import Observer
from tiny import tiny_encoder, tiny_recipe


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


class StopAt(Observer):
    def __init__(self, step: int) -> None:
        self.left = step

    def stepped(self, record: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def run(recipe: dict[str, Any], out: Path, *, stop_at: int = -1, resume: bool = False) -> None:
    train(load_recipe(recipe), out=out, observer=StopAt(stop_at), resume=resume)


def library(name: str, **options: Any) -> dict[str, Any]:
    return {"kind": "pytorch_optimizer", "name": name, "lr": 1e-3, "options": options}


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adabelief": {"kind": "adabelief", "lr": 1e-3, "head_lr": 1e-2, "weight_decay": 0.1},
    "sgd with momentum": {"kind": "sgd", "lr": 1e-2, "momentum": 0.9, "nesterov": True},
    "a step of each group": library("lion") | {"weight_decay": 0.1, "layer_decay": 0.8},
    "queues of gradients": library("AdaShift", keep_num=3),
    "lists of matrices, and random draws": library("SOAP", precondition_frequency=2),
    "mappings by number": library("AggMo"),
    "state of no parameter": library("MADGRAD"),
    "a state beside the parameters'": library("StableSPAM", update_proj_gap=4),
    "one estimate for all groups": library("Prodigy") | {"lr": 1.0, "weight_decay": 0.1},
}


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_a_stopped_run_goes_on_to_the_same_bits(encoder: Path, tmp_path: Path, case: str) -> None:
    """One task a step, so that heads have a gradient in some steps only."""
    recipe = tiny_recipe(encoder, optimizer=OPTIMIZERS[case], schedule="sequential", epochs=2)
    run(recipe, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "parted", stop_at=11)
    run(recipe, tmp_path / "parted", resume=True)
    whole, parted = (checkpoint_folders(tmp_path / name / "checkpoints")[-1] for name in ("whole", "parted"))
    for file in ("weights.safetensors", "optimizer.safetensors"):
        assert (whole / file).read_bytes() == (parted / file).read_bytes()
    numbers = [json.loads((folder / "state.json").read_text())["optimizer"] for folder in (whole, parted)]
    assert numbers[0] == numbers[1]


def test_what_cannot_be_resumed_is_refused_before_the_first_step(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(encoder, optimizer=library("DAdaptAdam") | {"head_lr": 1e-2})
    with pytest.raises(UsageError, match="DAdaptAdam cannot be used: it has one learning rate"):
        run(recipe, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.safetensors"))
