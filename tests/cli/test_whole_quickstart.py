"""The first thing a newcomer runs, with the real small encoder; and what a stopped process leaves."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import COMMAND, document

MARGINS = {"reviews": 0.15, "questions": 0.15, "sentences": 0.5}
"""How far each task has to be above the majority baseline."""

ONE_THREAD = "threads=1"
"""Tests run beside each other: one core each."""

pytestmark = [pytest.mark.slow, pytest.mark.embedded]


def test_the_quickstart_beats_the_baseline_clearly_on_every_task(tmp_path: Path) -> None:
    found = document("quickstart", "--out", tmp_path / "run", "--set", ONE_THREAD)
    for task, margin in MARGINS.items():
        metric = found["primary"][task]
        guess = found["baseline"]["tasks"][task][metric]
        assert found["dev"]["tasks"][task][metric] > guess + margin
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    scored = document("evaluate", tmp_path / "run")
    assert scored == found["dev"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_real_command_leaves_a_run_that_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    words = [COMMAND, "quickstart", "--out", tmp_path / "run", "--set", "stages.0.epochs=2"]
    words += ["--set", "stages.0.checkpoint_every_steps=5", "--set", ONE_THREAD]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 240
    while not any((tmp_path / "run" / "checkpoints").glob("step-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=240)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + number
        assert f"manyhead quickstart --out {tmp_path / 'run'}" in said
        assert "--resume" in said
    done = document(*words[1:], "--resume")
    assert done["steps"] == 78
