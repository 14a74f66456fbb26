"""`manyhead track` with the real packages, offline: what is read back is what metrics.jsonl holds."""

import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from watched_runs import calls, expected_scalars, lines_of, lives, wait_until

from manyhead.errors import CheckpointError, RecipeError, WriteError
from manyhead.tracking.replay import track_run
from manyhead.training.run_folder import open_run

Scalars = dict[str, dict[int, float]]

READ = """
import os, sys, json
os.environ["MLFLOW_ALLOW_FILE_STORE"] = os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
experiments = client.search_experiments()
runs = client.search_runs([each.experiment_id for each in experiments if each.name == "manyhead"])
found = [
    {
        "name": run.info.run_name, "status": run.info.status, "ended": run.info.end_time,
        "params": run.data.params, "tags": run.data.tags,
        "scalars": {key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]
                    for key in run.data.metrics},
        "artifacts": [each.path for each in client.list_artifacts(run.info.run_id)],
    }
    for run in runs
]
print(json.dumps(found))
"""


def test_tensorboard_holds_the_log(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # the second time in place of the first
        track_run(finished, "tensorboard")
    found = EventAccumulator(str(finished / "trackers" / "tensorboard"), {"scalars": 0}).Reload()
    tags: dict[str, Any] = found.Tags()
    scalars = {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in tags["scalars"]}
    expected = expected_scalars(finished)
    assert set(scalars) == set(expected)
    for tag, points in scalars.items():
        assert points == [(step, float(np.float32(value))) for step, value in expected[tag].items()]
    recipe = json.loads(found.Tensors("recipe")[0].tensor_proto.string_val[0])
    assert recipe["tasks"].keys() == {"reviews", "questions", "sentences"}
    assert {"summary.json", "status"} <= set(tags["tensors"])


def runs_of_mlflow(store: Path) -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, "-c", READ, store.as_uri()], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_mlflow_holds_the_log_once(finished: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for _ in range(2):
        track_run(finished, f"{{kind: mlflow, folder: '{store}'}}")
    (run,) = runs_of_mlflow(store)
    assert (run["name"], run["status"]) == ("a run", "FINISHED")
    expected = expected_scalars(finished)
    assert {name: dict(points) for name, points in run["scalars"].items()} == expected
    assert [len(points) for points in run["scalars"].values()] == [len(expected[name]) for name in run["scalars"]]
    assert run["params"]["stages.0.optimizer.lr"] == "0.001"
    assert {"recipe.yaml", "summary.json", "report.html"} <= set(run["artifacts"])


def test_wandb_holds_the_log_and_nothing_of_this_machine(finished: Path) -> None:
    track_run(finished, "wandb")
    scalars: Scalars = {}
    heads: list[Any] = []
    for record in records_of_wandb(finished):
        if record.HasField("run"):
            heads.append(record.run)
        elif record.HasField("history"):
            values = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
            }
            for name, value in values.items():
                if not name.startswith("_"):
                    scalars.setdefault(name, {})[values["_step"]] = value
    assert scalars == expected_scalars(finished)
    config = {item.key: json.loads(item.value_json) for item in heads[0].config.update}
    assert config["tasks"] == json.loads(json.dumps(yaml.safe_load((finished / "recipe.yaml").read_text())))["tasks"]
    assert (heads[0].project, heads[0].display_name) == ("manyhead", "a run")
    assert exit_code_of_wandb(finished) == 0
    assert list((finished / "trackers" / "wandb").rglob("report.html"))
    assert not list((finished / "trackers" / "wandb").rglob("wandb-metadata.json"))


def exit_code_of_wandb(run: Path) -> int:
    (code,) = (record.exit.exit_code for record in records_of_wandb(run) if record.HasField("exit"))
    return code


def records_of_wandb(run: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2
    (path,) = (run / "trackers" / "wandb").rglob("*.wandb")
    for data in blocks_of_wandb(path):
        record = messages.Record()
        record.ParseFromString(data)
        yield record


def blocks_of_wandb(path: Path) -> Iterator[bytes]:
    """The records of an offline run: blocks of 32 KiB with pieces of records, as LevelDB's log has them."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    place, record = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            yield record
            record = b""


@pytest.mark.trackio
def test_trackio_holds_the_log(finished: Path) -> None:
    track_run(finished, "trackio")
    (path,) = (finished / "trackers" / "trackio").glob("*.db")
    scalars: Scalars = {}
    with sqlite3.connect(path) as database:
        for step, text in database.execute("SELECT step, metrics FROM metrics"):
            for name, value in json.loads(text).items():
                if name != "status":
                    scalars.setdefault(name, {})[step] = value
    database.close()
    assert scalars == expected_scalars(finished)


def test_an_unfinished_run_and_a_torn_last_line(finished: Path, tmp_path: Path, copied: Callable[[Path], Path]) -> None:
    run = copied(tmp_path / "torn")
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text("no record\n[1]\n" + text[:-5])
    tracked = track_run(run, "witness")
    assert tracked.records == len(lines_of(finished)) - 1


@contextmanager
def trained(run: Path) -> Iterator[None]:
    """A run as it is while it is being trained."""
    folder = open_run(run)
    folder.update_state(status="running")
    with folder.locked():
        yield


def test_a_run_that_goes_on_is_running_and_one_that_could_not_say_was_killed(
    tmp_path: Path, copied: Callable[[Path], Path]
) -> None:
    run = copied(tmp_path / "run")
    with trained(run):
        assert track_run(run, "prints").as_dict()["status"] == "running"
        assert calls(run, "prints")[-1] == ("finish", "running")
        track_run(run, "wandb")
        assert exit_code_of_wandb(run) == 0
    assert track_run(run, "prints").status == "killed"
    assert calls(run, "prints")[-1] == ("finish", "killed")


@pytest.mark.slow
def test_mlflow_has_a_run_that_goes_on_as_running(tmp_path: Path, copied: Callable[[Path], Path]) -> None:
    run = copied(tmp_path / "run")
    for is_trained, expected in ((True, "RUNNING"), (False, "KILLED")):
        with trained(run) if is_trained else nullcontext():
            track_run(run, "mlflow")
        (found,) = runs_of_mlflow(run / "trackers" / "mlflow")
        assert found["status"] == expected
        assert (found["ended"] is None) == is_trained


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_ends_the_tracker_too(
    tmp_path: Path, copied: Callable[[Path], Path], number: signal.Signals, code: int
) -> None:
    run = copied(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-m", "manyhead", "track", run, "--to", "hangs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        wait_until(lambda: len(calls(run, "hangs")) > 2)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (code, "")
    assert number == signal.SIGKILL or stderr.startswith("stopped; hangs may have a part of")
    wait_until(lambda: not lives(dict(calls(run, "hangs"))["pids"][0]))


def test_what_cannot_be_tracked_is_said(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no recipe\.yaml there"):
        track_run(tmp_path, "tensorboard")
    with pytest.raises(RecipeError, match=r"unknown kind 'tensorbord'.*did you mean 'tensorboard'"):
        track_run(finished, "tensorbord")
    with pytest.raises(RecipeError, match=r"unknown key; did you mean 'project'"):
        track_run(finished, "{kind: wandb, projekt: a}")
    with pytest.raises(WriteError, match="tracker raises_at_log: RuntimeError: no log"):
        track_run(finished, "raises_at_log")
    with pytest.raises(WriteError, match="tracker exits: it ended its process with 0"):
        track_run(finished, "exits")
