"""One process at a time trains in a run; a lock ends with its process, however that ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from faulty import differences, ending, run

from manyhead.errors import UsageError
from manyhead.training.run_folder import open_run
from tiny import tiny_recipe

BLOCKED = Path(__file__).with_name("blocked_command.py")


def long_recipe(encoder: Path) -> dict[str, Any]:
    return tiny_recipe(encoder, evaluate_every_steps=2)


@pytest.fixture
def recipe_file(encoder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(long_recipe(encoder), sort_keys=False), encoding="utf-8")
    return path


@contextmanager
def holder(recipe: Path, out: Path, place: str = "evaluation: begins") -> Iterator[subprocess.Popen[str]]:
    """A command that trains in ``out`` and hangs with its lock at a place."""
    process = subprocess.Popen(
        [sys.executable, str(BLOCKED), "train", str(recipe), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"BLOCKED_AT": place},
    )
    try:
        assert process.stderr is not None
        while "blocked" not in process.stderr.readline():
            assert process.poll() is None
        yield process
    finally:
        process.kill()
        process.communicate()


def contents(path: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(each): (each.stat().st_mtime_ns, each.read_bytes())
        for each in sorted(path.rglob("*"))
        if each.is_file() and not each.is_symlink()
    }


def test_the_second_is_refused_and_harms_nothing_and_a_killed_one_leaves_no_lock(
    recipe_file: Path, encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with holder(recipe_file, out) as first:
        before = contents(out)
        words = [sys.executable, "-m", "manyhead", "train", str(recipe_file), "--out", str(out)]
        for more, expected in (["--resume"], "another process is training in this run"), ([], "exists already"):
            done = subprocess.run([*words, *more], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout) == (2, "")
            assert expected in done.stderr
            assert "Traceback" not in done.stderr
        assert contents(out) == before
        assert first.poll() is None
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert (out / ".lock").exists()
    run(long_recipe(encoder), out, resume=True)
    run(long_recipe(encoder), tmp_path / "whole")
    assert differences(ending(tmp_path / "whole"), ending(out)) == []


def test_a_run_is_free_again_when_the_first_has_ended(encoder: Path, tmp_path: Path) -> None:
    done = run(long_recipe(encoder), tmp_path / "run")
    folder = open_run(done.path)
    with folder.locked(), pytest.raises(UsageError, match="another process"):
        run(long_recipe(encoder), done.path, resume=True)
    assert run(long_recipe(encoder), done.path, resume=True).summary == done.summary


def test_a_process_that_was_started_meanwhile_does_not_keep_the_lock(encoder: Path, tmp_path: Path) -> None:
    done = run(long_recipe(encoder), tmp_path / "run")
    folder = open_run(done.path)
    with folder.locked():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    try:
        began = time.monotonic()
        run(long_recipe(encoder), done.path, resume=True)
        assert time.monotonic() - began < 60
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
