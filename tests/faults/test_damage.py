"""Damaged files are noticed and named, whatever the damage; the checkpoint before is gone on from, to the same bits."""

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from faulty import AtVisit, Events, differences, ending, flip_a_bit, run, staged

from manyhead.errors import CheckpointError, ManyheadError, StoppedError
from manyhead.faults import injected
from manyhead.inference.predictor import Model
from manyhead.training.checkpoint import checkpoint_folders, damage
from stopping import StopAt

FILES = ("weights.safetensors", "optimizer.safetensors", "extras.safetensors", "state.json", "manifest.json")
FLIPS = 40


def flip(path: Path, other: Path, generator: random.Random) -> None:
    flip_a_bit(path, generator.randrange(path.stat().st_size), generator.randrange(8))


def truncate(path: Path, other: Path, generator: random.Random) -> None:
    os.truncate(path, generator.randrange(1, path.stat().st_size))


def empty(path: Path, other: Path, generator: random.Random) -> None:
    os.truncate(path, 0)


def remove(path: Path, other: Path, generator: random.Random) -> None:
    path.unlink()


def swap(path: Path, other: Path, generator: random.Random) -> None:
    mine, theirs = path.read_bytes(), other.read_bytes()
    assert mine != theirs
    path.write_bytes(theirs)
    other.write_bytes(mine)


def grow(path: Path, other: Path, generator: random.Random) -> None:
    path.write_bytes(path.read_bytes() + b" ")


Harm = Callable[[Path, Path, random.Random], None]
HARMS: dict[str, Harm] = {
    "flipped": flip,
    "truncated": truncate,
    "emptied": empty,
    "missing": remove,
    "swapped": swap,
    "grown": grow,
}


def fail(_: object) -> None:
    raise KeyError("as if the power went")


@pytest.fixture(scope="module")
def recipe(encoder: Path) -> dict[str, Any]:
    stage = {"epochs": 3, "evaluate_every_steps": 2, "balancing": "dwa", "optimizer": {"kind": "adamw", "lr": 1e-3}}
    return staged(encoder, stage)


@pytest.fixture(scope="module")
def whole(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(recipe, tmp_path_factory.mktemp("whole") / "run").path


@pytest.fixture(scope="module")
def broken_off(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended amid its eighth step; its newest checkpoints are those of the steps 4 and 6."""
    path = tmp_path_factory.mktemp("broken-off") / "run"
    with injected(AtVisit("updated", fail, visit=8)), pytest.raises(KeyError):
        run(recipe, path)
    assert [folder.name for folder in checkpoint_folders(path / "checkpoints")][-2:] == STEPS
    return path


STEPS = ["step-00000004", "step-00000006"]


def copied(run_folder: Path, to: Path) -> Path:
    return shutil.copytree(run_folder, to, symlinks=True)


def harm(path: Path, file: str, how: str, seed: int = 0) -> None:
    """Harms a file of the newest checkpoint."""
    old, new = (path / "checkpoints" / step / file for step in STEPS)
    HARMS[how](new, old, random.Random(f"{file} {how} {seed}"))


SAME = {("state.json", "grown"), ("manifest.json", "grown")}
"""No damage: white space behind JSON is none. That of a checkpoint's state is noticed by its manifest."""
CASES = [(file, how) for file in FILES for how in HARMS if (file, how) != ("manifest.json", "grown")]


@pytest.mark.parametrize("file", FILES)
def test_no_damage_of_a_checkpoint_goes_unnoticed(broken_off: Path, tmp_path: Path, file: str) -> None:
    """Flips at many places, and all other damage."""
    path = copied(broken_off, tmp_path / "run")
    good = {step: (path / "checkpoints" / step / file).read_bytes() for step in STEPS}
    noticed = 0
    for how in [how for name, how in CASES if name == file]:
        for seed in range(FLIPS if how == "flipped" else 1):
            harm(path, file, how, seed)
            problem = damage(path / "checkpoints" / STEPS[1])
            assert problem is not None, (file, how, seed)
            assert file in problem or file == "manifest.json" or how == "flipped", problem
            noticed += 1
            for step, content in good.items():
                (path / "checkpoints" / step / file).write_bytes(content)
    assert damage(path / "checkpoints" / STEPS[1]) is None
    assert noticed >= FLIPS + 4


def check_goes_on(recipe: Mapping[str, Any], path: Path, whole: Path, *named: str) -> None:
    events = Events()
    run(recipe, path, events, resume=True)
    told = next(text for text in events.texts if STEPS[1] in text)
    assert "the checkpoint before it is used" in told
    for each in named:
        assert each in told
    assert differences(ending(whole), ending(path)) == []


@pytest.mark.parametrize(
    ("file", "how"),
    [pytest.param(*case, marks=() if number % 7 == 0 else pytest.mark.slow) for number, case in enumerate(CASES)],
)
def test_the_checkpoint_before_a_damaged_one_leads_to_the_same_bits(
    recipe: dict[str, Any], broken_off: Path, whole: Path, tmp_path: Path, file: str, how: str
) -> None:
    path = copied(broken_off, tmp_path / "run")
    if how == "swapped":  # the other one's stays as it was: it is to be gone on from
        (path / "checkpoints" / STEPS[1] / file).write_bytes((path / "checkpoints" / STEPS[0] / file).read_bytes())
    else:
        harm(path, file, how)
    check_goes_on(recipe, path, whole)


def test_checkpoints_under_each_others_names_are_noticed(
    recipe: dict[str, Any], broken_off: Path, whole: Path, tmp_path: Path
) -> None:
    path = copied(broken_off, tmp_path / "run")
    shutil.rmtree(path / "checkpoints" / STEPS[1])
    shutil.copytree(path / "checkpoints" / STEPS[0], path / "checkpoints" / STEPS[1])
    check_goes_on(recipe, path, whole, "another step")


def test_a_damaged_older_checkpoint_harms_nothing(
    recipe: dict[str, Any], broken_off: Path, whole: Path, tmp_path: Path
) -> None:
    """It is passed over when old ones are removed, whatever its state says."""
    for how in ("flipped", "emptied", "missing"):
        path = copied(broken_off, tmp_path / how)
        old = path / "checkpoints" / STEPS[0]
        assert (path / "best").resolve() != old
        HARMS[how](old / "state.json", old, random.Random(0))
        run(recipe, path, resume=True)
        assert differences(ending(whole), ending(path)) == []


def test_a_damaged_newer_checkpoint_never_wins_over_a_good_one(encoder: Path, tmp_path: Path) -> None:
    """One checkpoint is kept: that of the signal, at a later step than the next good one, must not push it out."""
    stage = {"epochs": 4, "evaluate_every_steps": 3, "checkpoint_every_steps": 2, "keep_checkpoints": 1}
    recipe = staged(encoder, stage)
    whole_run = run(recipe, tmp_path / "whole")
    path = tmp_path / "run"
    with pytest.raises(StoppedError):
        run(recipe, path, StopAt(5))
    kept = checkpoint_folders(path / "checkpoints")
    assert len(kept) == 2  # the best one too
    flip_a_bit(kept[-1] / "state.json")
    events = Events()
    with injected(AtVisit("save: ends", fail, visit=2)), pytest.raises(KeyError):
        run(recipe, path, events, resume=True)
    assert kept[-1].name in events
    assert [folder for folder in checkpoint_folders(path / "checkpoints") if damage(folder)] == []
    run(recipe, path, resume=True)
    assert differences(ending(whole_run.path), ending(path)) == []


RUN_FILES = ("state.json", "manifest.json", "recipe.yaml", "encoder/config.json", "encoder/tokenizer.json")


@pytest.mark.parametrize(
    ("file", "how"),
    [(file, how) for file in RUN_FILES for how in HARMS if how != "swapped" and (file, how) not in SAME],
)
def test_a_damaged_file_of_the_run_is_named(
    recipe: dict[str, Any], broken_off: Path, tmp_path: Path, file: str, how: str
) -> None:
    path = copied(broken_off, tmp_path / "run")
    HARMS[how](path / file, path / file, random.Random(file + how))
    with pytest.raises(ManyheadError) as told:
        run(recipe, path, resume=True)
    assert file in str(told.value)
    assert told.value.exit_code == 4


def test_a_damaged_log_is_named(recipe: dict[str, Any], broken_off: Path, whole: Path, tmp_path: Path) -> None:
    for how in ("truncated", "emptied", "missing"):
        path = copied(broken_off, tmp_path / how)
        log = path / "metrics.jsonl"
        if how == "truncated":
            os.truncate(log, 100)
        else:
            HARMS[how](log, log, random.Random(0))
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl"):
            run(recipe, path, resume=True)
    path = copied(broken_off, tmp_path / "flipped")
    (path / "metrics.jsonl").write_bytes((path / "metrics.jsonl").read_bytes().replace(b'"epoch": 0', b'"epoch": 1', 1))
    events = Events()
    run(recipe, path, events, resume=True)
    assert "metrics.jsonl is not what was logged" in events
    found, expected = ending(path), ending(whole)
    assert differences(expected, found) == ["log"]


@pytest.mark.parametrize("how", ["missing", "elsewhere", "dangling"])
def test_the_link_to_the_best_is_set_right(
    recipe: dict[str, Any], broken_off: Path, whole: Path, tmp_path: Path, how: str
) -> None:
    path = copied(broken_off, tmp_path / "run")
    (path / "best").unlink()
    if how != "missing":
        (path / "best").symlink_to("checkpoints/" + (STEPS[0] if how == "elsewhere" else "step-99999999"))
    run(recipe, path, resume=True)
    assert differences(ending(whole), ending(path)) == []


def test_damage_of_a_finished_model_is_named(whole: Path, tmp_path: Path) -> None:
    files = sorted(str(file.relative_to(whole)) for file in (whole / "model").rglob("*") if file.is_file())
    assert len(files) >= 5
    for file in files:
        for how in ("flipped", "truncated", "emptied", "missing"):
            path = copied(whole, tmp_path / f"{how}-{file.replace('/', '-')}")
            HARMS[how](path / file, path / file, random.Random(file + how))
            with pytest.raises(CheckpointError) as told:
                Model.load(path / "model")
            assert Path(file).name in str(told.value), (file, how)


def test_a_finished_run_says_what_it_said(whole: Path, recipe: dict[str, Any], tmp_path: Path) -> None:
    """Its summary is read again; one that cannot be is told."""
    path = copied(whole, tmp_path / "run")
    os.truncate(path / "summary.json", 20)
    with pytest.raises(CheckpointError, match=r"summary\.json"):
        run(recipe, path, resume=True)
    assert json.loads((whole / "summary.json").read_text())["steps"] == 9


def test_a_checkpoint_of_another_run_is_not_used(recipe: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    other = run({**recipe, "seed": 14}, tmp_path / "other").path
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "run", StopAt(5))
    newest = checkpoint_folders(tmp_path / "run/checkpoints")[-1]
    theirs = checkpoint_folders(other / "checkpoints")[-1]
    assert theirs.name > newest.name
    shutil.copytree(theirs, newest.with_name(theirs.name))
    events = Events()
    run(recipe, tmp_path / "run", events, resume=True)
    assert any(theirs.name in text and "another run" in text for text in events.texts)
    assert differences(ending(whole), ending(tmp_path / "run")) == []


def test_a_checkpoint_whose_best_is_damaged_is_not_gone_on_from(encoder: Path, tmp_path: Path) -> None:
    """The one before, with its own best, is; so the run does not end without the weights that it is to ship."""
    stage = {"epochs": 4, "evaluate_every_steps": 3, "checkpoint_every_steps": 1, "keep_checkpoints": 9}
    recipe = staged(encoder, stage)
    whole_run = run(recipe, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "run", StopAt(5))
    best = (tmp_path / "run/best").resolve()
    assert best.name == "step-00000003"
    flip_a_bit(best / "weights.safetensors")
    events = Events()
    run(recipe, tmp_path / "run", events, resume=True)
    assert f"{best.name}, the best one by then, is damaged" in events
    assert "going on after step 2" in events
    assert differences(ending(whole_run.path), ending(tmp_path / "run")) == []
