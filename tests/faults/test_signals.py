"""SIGTERM and SIGINT in every phase: saved within a step, gone on with to the same bits; a second one ends at once."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from faulty import AtVisit, Events, differences, ending, leftovers, run, send, staged, steps_of

from manyhead.errors import StoppedError
from manyhead.faults import injected
from manyhead.training.checkpoint import checkpoint_folders, damage
from tiny import tiny_recipe

BLOCKED = Path(__file__).with_name("blocked_command.py")
TASKS = {"questions": {"pairing": "siamese", "head": "cosine", "loss": "cosine_embedding"}}
TEACHING = (
    {"name": "teacher", "tasks": ["reviews"], "epochs": 1},
    {"name": "student", "distillation": {"teachers": ["teacher"]}, "epochs": 1, "evaluate_every_steps": 2},
)

PHASES = {
    # place, visit: how many steps are taken after the signal at most
    ("tokenise: a batch", 2): 0,
    ("publish: all is on the disk", 1): 0,
    ("forward", 1): 1,
    ("losses", 2): 1,
    ("gradients", 3): 1,
    ("updated", 3): 1,
    ("log", 2): 0,
    ("step: logged", 3): 0,
    ("evaluation: begins", 1): 0,
    ("evaluation: forward", 1): 0,
    ("evaluation: forward", 3): 0,
    ("evaluation: a batch", 1): 0,
    ("evaluation: a batch", 5): 0,
    ("save: begins", 1): 0,
    ("save: begins", 2): 0,
    ("save: ends", 1): 1,
    ("checkpoint: weights written", 1): 1,
    ("checkpoint: manifest written", 2): 1,
    ("publish: renamed", 2): 1,
    ("publish: renamed", 4): 0,
    ("save: best linked", 1): 1,
    ("checkpoint: an old one is being removed", 1): 1,
    ("teachers: asked", 1): 1,
    ("finish: begins", 1): 0,
    ("finish: the model is written", 1): 0,
    ("finish: the report is written", 1): 0,
}


@pytest.fixture(scope="module")
def recipe(encoder: Path) -> dict[str, Any]:
    """Two stages, the first of which teaches the second; checkpoints at each second step, and a fitted threshold."""
    return staged(encoder, *({**stage, "checkpoint_every_steps": 1} for stage in TEACHING), tasks=TASKS)


@pytest.fixture(scope="module")
def whole(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return ending(run(recipe, tmp_path_factory.mktemp("whole") / "run").path)


@pytest.mark.parametrize(("place", "visit"), list(PHASES))
def test_a_signal_in_any_phase_saves_and_the_same_bits_come_after_it(
    recipe: dict[str, Any],
    whole: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    visit: int,
) -> None:
    number = (signal.SIGTERM, signal.SIGINT)[(len(place) + visit) % 2]
    monkeypatch.setenv("MANYHEAD_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "run"
    taken: list[int] = []

    def stop(_: object) -> None:
        taken.append(hook.visits["updated"])
        os.kill(os.getpid(), number)

    hook = AtVisit(place, stop, visit)
    with injected(hook), pytest.raises(StoppedError, match="--resume") as told:
        run(recipe, path)
    assert told.value.exit_code == 128 + number
    assert hook.visits["updated"] - taken[0] <= PHASES[place, visit]
    if path.exists():
        check_saved(path, hook.visits["updated"])
    assert leftovers(tmp_path) == []
    run(recipe, path, resume=True)
    assert differences(whole, ending(path)) == []


def check_saved(path: Path, steps: int) -> None:
    assert json.loads((path / "state.json").read_text())["status"] == "stopped"
    folders = checkpoint_folders(path / "checkpoints")
    assert [folder for folder in folders if damage(folder)] == []
    if steps:
        assert json.loads((folders[-1] / "state.json").read_text())["step"] == steps == len(steps_of(path))


def test_signals_amid_thresholds_and_teachers(
    recipe: dict[str, Any], whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both look at rows batch by batch, and at the signal behind each."""
    import manyhead.build.run
    import manyhead.training.stages

    for module, name in ((manyhead.training.stages, "fit_thresholds"), (manyhead.build.run, "teach")):
        begun: list[str] = []
        original = getattr(module, name)

        def begin(*args: Any, original: Any = original, begun: list[str] = begun, **keys: Any) -> Any:
            begun.append("begun")
            try:
                found = original(*args, **keys)
            finally:
                begun.clear()
            return found

        def stop(place: str, value: Any, begun: list[str] = begun) -> Any:
            if place == "evaluation: forward" and begun:
                begun.clear()
                os.kill(os.getpid(), signal.SIGTERM)
            return value

        path = tmp_path / name
        with monkeypatch.context() as patched:
            patched.setattr(module, name, begin)
            with injected(stop), pytest.raises(StoppedError) as told:
                run(recipe, path)
        assert told.value.exit_code == 143
        run(recipe, path, resume=True)
        assert differences(whole, ending(path)) == []


def test_a_signal_is_told_of_once_and_handlers_are_as_before(recipe: dict[str, Any], tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    events = Events()
    with injected(AtVisit("updated", send(signal.SIGINT))), pytest.raises(StoppedError):
        run(recipe, tmp_path / "run", events)
    assert [text for text in events.texts if "a second signal ends at once" in text] != []
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_an_observer_that_fails_does_not_lose_the_run(
    recipe: dict[str, Any], whole: dict[str, str], tmp_path: Path
) -> None:
    """As where the signal comes amid a line that is being printed, or stderr is gone."""

    class Gone(Events):
        def event(self, text: str) -> None:
            if "second signal" in text:
                raise RuntimeError("reentrant call inside stderr")

    with injected(AtVisit("updated", send(signal.SIGTERM))), pytest.raises(StoppedError):
        run(recipe, tmp_path / "run", Gone())
    run(recipe, tmp_path / "run", resume=True)
    assert differences(whole, ending(tmp_path / "run")) == []


def test_a_signal_while_the_last_checkpoint_is_written_is_not_forgotten(
    recipe: dict[str, Any], whole: dict[str, str], tmp_path: Path
) -> None:
    """Training waits for it then, and has nothing else to do."""

    def late(place: str, value: Any) -> Any:
        if place == "publish: renamed" and value.name == "step-00000006":
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGTERM)
        return value

    with injected(late), pytest.raises(StoppedError) as told:
        run(recipe, tmp_path / "run")
    assert told.value.exit_code == 143
    assert not (tmp_path / "run" / "model").exists()
    run(recipe, tmp_path / "run", resume=True)
    assert differences(whole, ending(tmp_path / "run")) == []


def write(path: Path, recipe: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(dict(recipe), sort_keys=False), encoding="utf-8")
    return path


def start(*words: object, script: Path | None = None, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(script)] if script else [sys.executable, "-m", "manyhead"]
    return subprocess.Popen(
        [*command, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | variables,
    )


def wait_for(path: Path, text: str, process: subprocess.Popen[str]) -> None:
    while not (path.exists() and text in path.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_with_its_code_and_says_how_it_goes_on(
    encoder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    recipe = write(tmp_path / "tiny.yaml", tiny_recipe(encoder, epochs=60, evaluate_every_steps=50))
    words = ("train", recipe, "--out", tmp_path / "a run")
    process = start(*words)
    wait_for(tmp_path / "a run" / "metrics.jsonl", '"step": 3', process)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (128 + number, "")
    told = shlex.split(stderr.splitlines()[-1])
    assert told == ["manyhead", *map(str, words), "--resume"]
    again = start(*told[1:])
    stdout, stderr = again.communicate(timeout=300)
    assert again.returncode == 0, stderr
    assert "going on after step" in stderr
    run(tiny_recipe(encoder, epochs=60, evaluate_every_steps=50), tmp_path / "whole")
    assert differences(ending(tmp_path / "whole"), ending(tmp_path / "a run")) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once_whatever_hangs(encoder: Path, tmp_path: Path, number: signal.Signals) -> None:
    recipe = write(tmp_path / "tiny.yaml", tiny_recipe(encoder))
    process = start("train", recipe, "--out", tmp_path / "run", script=BLOCKED, BLOCKED_AT="forward")
    assert process.stderr is not None
    while "blocked" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    while "a second signal ends at once" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(number)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == -number
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_a_run_nobody_reads_any_more_is_saved_all_the_same(encoder: Path, tmp_path: Path) -> None:
    """As in `manyhead train ... |& tee log` where the signal goes to both."""
    recipe = write(tmp_path / "tiny.yaml", tiny_recipe(encoder, epochs=2000, evaluate_every_steps=50))
    process = start("train", recipe, "--out", tmp_path / "run")
    wait_for(tmp_path / "run" / "metrics.jsonl", '"step": 60', process)
    assert process.stderr is not None
    process.stderr.close()
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    assert process.stdout is not None
    process.stdout.close()
    steps = len(steps_of(tmp_path / "run"))
    newest = checkpoint_folders(tmp_path / "run" / "checkpoints")[-1]
    assert json.loads((newest / "state.json").read_text())["step"] == steps
