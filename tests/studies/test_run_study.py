"""Studies that are really run: what is left on disk, what is not done twice, and what a kill changes: nothing."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manyhead.errors import UsageError
from manyhead.studies import run_study
from manyhead.studies.folder import open_study

Write = Callable[..., Path]

COMMAND = Path(sys.executable).with_name("manyhead")
DIVERGES: dict[str, Any] = {"optimizer": {"kind": "adamw", "lr": 1e30}, "clip_norm": None}


def without_time(value: Any) -> Any:
    """``value`` less everything under a key named time."""
    if isinstance(value, dict):
        return {key: without_time(item) for key, item in value.items() if key != "time"}
    return [without_time(item) for item in value] if isinstance(value, list) else value


def table(folder: Path) -> dict[str, Any]:
    return without_time(json.loads((folder / "table.json").read_text()))


def logs(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "logs").iterdir()}


def test_a_study_with_shared_and_failing_runs(write_recipe: Write, write_study: Write, tmp_path: Path) -> None:
    write_recipe("a", header="# published: {reviews: .5}\n")
    write_recipe("bad", DIVERGES)
    rows = "[a.yaml, {name: joined, row: {reviews: a.yaml}}, bad.yaml]"
    path = write_study(f"study: 1\nname: n\nbaseline: a\nrows: {rows}\n")
    told: list[str] = []
    out = tmp_path / "out"
    result = run_study(path, budget="smoke", out=out, jobs=2, tell=told.append)
    assert result.exit_code == 3
    assert [row["status"] for row in result.document["rows"]] == ["finished", "finished", "diverged"]
    assert [failure["reason"][:19] for failure in result.document["failures"]] == ["stage s0, step 2: t"]
    good, joined, bad = result.document["rows"]
    assert good["scores"]["reviews"]["mean"] == joined["scores"]["reviews"]["mean"] is not None
    assert bad["scores"]["reviews"]["mean"] is None
    assert result.document["versions"].keys() >= {"manyhead", "torch"}
    assert sum(good["runs"][0]["examples"].values()) <= 64
    assert without_time(result.document) == table(out)
    assert (out / "table.md").read_text().startswith("# n\n")
    assert len([line for line in told if line.startswith("run ")]) == 2

    (run,) = (out / "runs").glob("a-seed13-*")
    left = {path.name for path in run.iterdir()}
    assert {"summary.json", "metrics.jsonl", "predictions", "report.html", "recipe.yaml", "state.json"} <= left
    assert not {"checkpoints", "best", "model"} & left
    before = logs(out)
    told.clear()
    again = run_study(path, budget="smoke", out=out, tell=told.append)
    assert told == ["2 of 2 runs are done already"]
    assert logs(out) == before
    assert again.document == result.document
    with pytest.raises(UsageError, match="holds study 'n' with budget smoke"):
        run_study(path, budget="small", out=out)


def test_one_process_works_on_a_study(write_recipe: Write, tmp_path: Path) -> None:
    path = write_recipe("a")
    with open_study(tmp_path / "out", "a", "smoke").locked(print), pytest.raises(UsageError, match="another process"):
        run_study(path, budget="smoke", out=tmp_path / "out")


def test_a_folder_of_something_else_is_left_alone(write_recipe: Write, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not empty and holds no study"):
        run_study(write_recipe("a"), out=tmp_path)


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [
        ({"search": {"keys": {"stages.0.epochs": [1, 2]}}}, {"seeds": 2}, "a search with several seeds"),
        ({"search": {"keys": {"stages.0.epochs": []}}}, {}, r'search\.keys\."stages\.0\.epochs": is empty'),
    ],
)
def test_what_does_not_go_with_a_search(
    changes: dict[str, Any], options: dict[str, Any], expected: str, write_recipe: Write, tmp_path: Path
) -> None:
    with pytest.raises(Exception, match=expected):
        run_study(write_recipe("a", **changes), out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# What follows starts processes and kills them.

STUDY = """\
study: 1
name: n
baseline: a
rows: [a.yaml, b.yaml, bad.yaml]
"""


@pytest.fixture
def study(write_recipe: Write, write_study: Write) -> Path:
    """Runs that take some seconds, two of which begin with the same stage; one diverges."""
    long = {"epochs": 60, "name": "a"}
    write_recipe("a", long)
    write_recipe("b", long, {"epochs": 80})
    write_recipe("bad", DIVERGES)
    return write_study(STUDY)


def start(study: Path, folder: Path, *words: str) -> "subprocess.Popen[str]":
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [COMMAND, "study", study, "--out", "out", *words],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for_steps(process: "subprocess.Popen[str]", folder: Path, pattern: str, steps: int) -> None:
    """Until a run whose folder matches has made so many steps."""
    while True:
        assert process.poll() is None, process.communicate()
        for path in (folder / "out").glob(f"{pattern}/metrics.jsonl"):
            with contextlib.suppress(OSError):
                if path.read_text().count('"step"') >= steps:
                    return
        time.sleep(0.02)


def workers(process: "subprocess.Popen[str]") -> list[int]:
    """The runs of a study, as process numbers."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == process.pid:
                found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_a_killed_study_goes_on_to_the_table_of_an_uninterrupted_one(study: Path, tmp_path: Path) -> None:
    whole = start(study, tmp_path / "whole")
    whole.communicate()
    assert whole.returncode == 3
    expected = table(tmp_path / "whole/out")
    assert [row["status"] for row in expected["rows"]] == ["finished", "finished", "diverged"]

    folder = tmp_path / "killed"
    first = start(study, folder)
    wait_for_steps(first, folder, "beginnings/*", 20)  # the study alone: its run has to notice
    first.kill()
    first.communicate()
    second = start(study, folder)
    wait_for_steps(second, folder, "runs/b-*", 190)  # the study and its run, as in a power cut
    for process in [*workers(second), second.pid]:
        os.kill(process, signal.SIGKILL)
    second.communicate()
    (log,) = (folder / "out/runs").glob("b-*/metrics.jsonl")
    written = log.stat().st_mtime_ns
    third = start(study, folder)
    while log.stat().st_mtime_ns == written:
        assert third.poll() is None, third.communicate()
        time.sleep(0.02)
    third.send_signal(signal.SIGTERM)
    _, said = third.communicate()
    assert third.returncode == 143, said
    assert said.rstrip().endswith("manyhead study " + f"{study} --budget full --out out")
    fourth = start(study, folder)
    fourth.communicate()
    assert fourth.returncode == 3
    assert table(folder / "out") == expected


@pytest.mark.slow
def test_a_run_that_is_killed_does_not_end_the_study(write_recipe: Write, write_study: Write, tmp_path: Path) -> None:
    write_recipe("a", {"epochs": 30})
    write_recipe("bad", DIVERGES)
    study, folder = write_study("study: 1\nname: n\nrows: [a.yaml, bad.yaml]\n"), tmp_path / "study"
    process = start(study, folder, "--json")
    wait_for_steps(process, folder, "runs/a-*", 5)
    (worker,) = workers(process)
    os.kill(worker, signal.SIGKILL)
    stdout, _ = process.communicate()
    found = json.loads(stdout)
    assert [row["status"] for row in found["rows"]] == ["failed", "diverged"]
    assert found["failures"][0]["reason"] == "ended by SIGKILL: out of memory?"
    assert process.returncode == 3
    again = start(study, folder, "--json")
    stdout, said = again.communicate()
    assert [row["status"] for row in json.loads(stdout)["rows"]] == ["finished", "diverged"]
    assert "1 of 2 runs are done already" in said


SEARCH = {
    "trials": 4,
    "keys": {"stages.0.optimizer.lr": {"low": 1e-6, "high": 1e-2, "log": True}, "stages.0.batch_size": [4, 8]},
}


@pytest.mark.slow
def test_a_killed_search_goes_on_as_it_would_have_gone(write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe("find", {"epochs": 12}, search=SEARCH, seed=12)
    whole = start(recipe, tmp_path / "whole")
    whole.communicate()
    assert whole.returncode == 0
    expected = table(tmp_path / "whole/out")
    scores = [row["scores"]["overall"]["mean"] for row in expected["rows"] if row["status"] == "finished"]
    assert scores == sorted(scores, reverse=True)
    assert [row["status"] for row in expected["rows"]].count("pruned") >= 1
    assert expected["failures"] == []

    folder = tmp_path / "killed"
    process = start(recipe, folder)
    wait_for_steps(process, folder, "runs/trial-2-*", 4)
    process.kill()
    process.communicate()
    last = start(recipe, folder)
    last.communicate()
    assert last.returncode == 0
    assert table(folder / "out") == expected
    trials = [json.loads((each / "out/trials.json").read_text()) for each in (tmp_path / "whole", folder)]
    assert trials[0] == trials[1]
    shutil.rmtree(folder)
