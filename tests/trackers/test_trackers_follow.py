"""A run with trackers is the run without, bit for bit, whatever they do; and they are given what its log holds."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from odd_trackers import Kind, Odd
from watched_runs import (
    Told,
    calls,
    ended_calls,
    expected_scalars,
    lines_of,
    lives,
    recipe_with,
    train_tiny,
    wait_until,
)

from manyhead.errors import RecipeError, StoppedError, UsageError
from manyhead.recipe.load import load_recipe
from manyhead.tracking.replay import track_run
from manyhead.tracking.run import Trackers
from manyhead.training.run_folder import open_run
from stopping import StopAt, records_of

HARMFUL = [kind for kind in get_args(Kind) if kind not in ("witness", "prints", "signals")]
SHORT_GRACE = """
import sys
import manyhead.tracking.run
from manyhead.cli.main import main
manyhead.tracking.run.GRACE_SECONDS = 2
main()
"""


def same(one: Path, other: Path) -> bool:
    files = ["model/weights.safetensors", *(f"predictions/{task}.dev.csv" for task in ("reviews", "sentences"))]
    assert all((one / file).is_file() for file in files)
    return records_of(one) == records_of(other) and all(
        (one / file).read_bytes() == (other / file).read_bytes() for file in files
    )


def logged(given: list[tuple[str, Any]]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for verb, value in given:
        for name, number in value["metrics"].items() if verb == "log" else ():
            assert value["step"] not in found.setdefault(name, {})
            found[name][value["step"]] = number
    return found


def test_a_tracker_is_given_the_recipe_the_log_and_what_the_run_ends_with(finished: Path) -> None:
    given = ended_calls(finished)
    assert [verb for verb, _ in given if verb != "log"] == ["pids", "start", "artifact", "artifact", "finish"]
    assert [value for verb, value in given if verb == "artifact"] == ["summary.json", "report.html"]
    assert given[-1] == ("finish", "finished")
    assert dict(given)["start"]["stages"][0]["balancing"]["kind"] == "pcgrad"
    expected = expected_scalars(finished)
    assert {"cosine/reviews/questions", "grad_norms/reviews", "grad_norm"} <= expected.keys()
    assert logged(given) == expected


@pytest.mark.parametrize(
    "kinds",
    [
        ["raises_at_log", "hangs_with_the_lock", "exits"],
        pytest.param([*HARMFUL[:4], "prints"], marks=pytest.mark.slow),
        pytest.param([*HARMFUL[4:], "signals"], marks=pytest.mark.slow),
    ],
)
def test_no_tracker_harms_the_run(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], kinds: list[str]
) -> None:
    monkeypatch.setattr("manyhead.tracking.run.GRACE_SECONDS", 1)
    plain = tmp_path / "plain"
    train_tiny(encoder, plain, [])
    told, began = Told(), time.monotonic()
    train_tiny(encoder, tmp_path / "run", kinds, told)
    took = time.monotonic() - began
    assert same(plain, tmp_path / "run")
    assert not (plain / "trackers").exists()
    trained = sum(line["time"]["seconds"] for line in lines_of(tmp_path / "run"))
    assert took < trained + 20
    for kind in set(kinds) & set(HARMFUL):
        lines = [text for text in told.texts if text.startswith((f"tracker {kind}:", f"tracker {kind} "))]
        assert len(lines) == 1, told.texts
        assert f"--to {kind}" in lines[0]
        wait_until(lambda kind=kind: all(not lives(pid) for pid in dict(calls(tmp_path / "run", kind)).get("pids", ())))
    assert capfd.readouterr() == ("", "")


def test_what_else_is_printed_where_answers_are_read_is_no_matter(
    tmp_path: Path, copied: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any Python on this machine may be set up to print as it starts."""
    said = ["{not json", "[1]", "{}", "[" * 10_000, '{"tracker": "other", "problem": 3}']
    (tmp_path / "sitecustomize.py").write_text(f"print(*{said}, sep=chr(10)); import os; os.write(1, b'\\xff\\n')")
    monkeypatch.syspath_prepend(tmp_path)
    run, told = copied(tmp_path / "run"), []
    with Trackers(run, open_run(run).id, [Odd(kind="raises_at_start")], told.append) as trackers:
        trackers.begin()
        wait_until(lambda: "pids" in dict(calls(run, "raises_at_start")))
        wait_until(lambda: not any(lives(pid) for pid in dict(calls(run, "raises_at_start"))["pids"]))
    (line,) = told
    assert line.startswith("tracker raises_at_start: RuntimeError: no start; ")


def test_no_tracker_outlives_the_process_that_sees_to_its_end(tmp_path: Path, copied: Callable[[Path], Path]) -> None:
    run, told = copied(tmp_path / "run"), []
    kinds: list[Kind] = ["hangs", "hangs_with_the_lock"]
    with Trackers(run, open_run(run).id, [Odd(kind=kind) for kind in kinds], told.append) as trackers:
        trackers.begin()
        wait_until(lambda: all(len(calls(run, kind)) > 2 for kind in kinds))
        pids = [dict(calls(run, kind))["pids"] for kind in kinds]
        (watcher,) = {parent for _, parent in pids}
        os.kill(watcher, signal.SIGKILL)
        wait_until(lambda: not any(lives(pid) for pid, _ in pids))
    assert [line.partition(" was ended before it was done; ")[0] for line in told] == [
        f"tracker {kind}" for kind in kinds
    ]


def test_a_process_whose_parent_was_gone_before_it_looked_ends() -> None:
    """Linux is asked too late then, and another system cannot be asked."""
    code = "import time; from manyhead.tracking.jobs import end_with; end_with(-1); time.sleep(60)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, start_new_session=True, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_stopped_run_says_so_and_goes_on_as_one_run_with_every_step_once(encoder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    keys: dict[str, Any] = {"checkpoint_every_steps": 4}
    with pytest.raises(StoppedError) as told:
        train_tiny(encoder, run, ["witness"], StopAt(3), **keys)
    assert told.value.exit_code == 143
    given = ended_calls(run)
    assert given[-1] == ("finish", "stopped")
    assert logged(given) == expected_scalars(run)
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text + text.splitlines()[0].replace('"step": 1', '"step": 4') + "\n")
    train_tiny(encoder, run, ["witness"], resume=True, **keys)
    assert logged(ended_calls(run, "finished")) == expected_scalars(run)
    assert sum(line["kind"] == "step" for line in lines_of(run)) == len(logged(ended_calls(run))["lr"])


def test_trackers_may_change_when_a_run_goes_on(encoder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(StoppedError):
        train_tiny(encoder, run, [], StopAt(3))
    told = Told()
    train_tiny(encoder, run, ["witness"], told, resume=True)
    assert not [text for text in told.texts if "bit-exact" in text]
    assert logged(ended_calls(run)) == expected_scalars(run)


def test_a_tracker_that_is_not_there_is_said_before_training(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of its name, as wandb leaves in the current one, is no package."""
    (tmp_path / "absent_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("manyhead.trackers.WandB.package", "absent_tracker")
    with pytest.raises(RecipeError, match=r"trackers\.1: the package .* not installed.*manyhead\[track\]") as told:
        train_tiny(encoder, tmp_path / "run", ["witness", {"kind": "wandb", "project": "a"}])
    assert told.value.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("trackers", "said"),
    [
        (["witness", "witness"], "trackers.1: 'witness' is there twice"),
        ([{"kind": "wandb", "mode": "cloud"}], "trackers.0.mode: cannot be 'cloud'; expected one of offline, online"),
        ("tensorboard", "trackers: cannot be 'tensorboard'; expected a list"),
    ],
)
def test_mistakes_in_trackers_are_said_with_their_keys(encoder: Path, trackers: Any, said: str) -> None:
    with pytest.raises(RecipeError) as told:
        load_recipe(recipe_with(encoder, trackers))
    assert said in str(told.value)


@contextmanager
def command(encoder: Path, tmp_path: Path, trackers: list[str], **changes: Any) -> Iterator[subprocess.Popen[str]]:
    """`manyhead train --json`, which has seconds for its trackers after its end."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe_with(encoder, trackers, **changes), sort_keys=False))
    process = subprocess.Popen(
        [sys.executable, "-c", SHORT_GRACE, "train", path, "--out", tmp_path / "run", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_the_command_prints_its_document_and_one_line_for_each_that_failed(encoder: Path, tmp_path: Path) -> None:
    with command(encoder, tmp_path, ["prints", "floods", "segfaults", "signals", "hangs"]) as process:
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0
    assert json.loads(stdout)["status"] == "finished"
    assert sum("tracker floods" in line for line in stderr.splitlines()) == 1
    assert "a line that is printed without end" not in stdout + stderr
    assert "{not json" not in stdout + stderr


@pytest.mark.slow
def test_a_signal_ends_the_command_as_ever(encoder: Path, tmp_path: Path) -> None:
    with command(encoder, tmp_path, ["witness", "hangs"], epochs=200, evaluate_every_steps=500) as process:
        wait_until(lambda: len(calls(tmp_path / "run", "hangs")) > 2)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (143, "")
    assert time.monotonic() - began < 15
    assert stderr.splitlines()[-1].strip().endswith("--resume")
    assert ended_calls(tmp_path / "run")[-1] == ("finish", "stopped")


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_behind(encoder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    kinds = ["witness", "hangs", "hangs_with_the_lock", "floods"]
    with command(encoder, tmp_path, kinds, epochs=500, evaluate_every_steps=500) as process:
        wait_until(lambda: all(len(calls(run, kind)) > 2 for kind in kinds))
        with pytest.raises(UsageError, match="is being trained and writes witness itself"):
            track_run(run, "witness")
        process.kill()
    pids = {pid for kind in kinds for pid in dict(calls(run, kind))["pids"]}
    assert len(pids) == len(kinds) + 1
    wait_until(lambda: not any(lives(pid) for pid in pids))
    assert ended_calls(run)[-1] == ("finish", "killed")
