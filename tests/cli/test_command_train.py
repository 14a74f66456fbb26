"""``manyhead train``: its output, how it ends, and how it goes on."""

import contextlib
import json
import os
import pty
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from commands import COMMAND, document, run, write_recipe

FIVE_MISTAKES = """\
manyhead: 1
name: five
sead: 3
tasks:
  reviews:
    kind: clasification
    text: [text]
    target: grade
    labels: {0: low, 1: high}
    files: {train: reviews.train.csv}
stages:
  - epochs: 0
    schedule: interleafed
    batch_sizes: 4
"""


def test_a_run_is_trained_and_told_about(recipe: Path, tmp_path: Path) -> None:
    result = run("train", recipe, "--out", tmp_path / "run")
    assert {"summary.json", "recipe.yaml", "model", "report.html"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }
    for shown in ("majority baseline", "reviews", "overall ", "overall_raw", "manyhead evaluate", "manyhead predict"):
        assert shown in result.stdout
    assert "an epoch is" in result.stderr
    assert "reviews 24" in result.stderr
    assert result.stderr.count("dev after step") == 2
    assert "(best so far)" in result.stderr


def test_json_is_the_summary_and_quiet_says_nothing(recipe: Path, tmp_path: Path) -> None:
    found = document("train", recipe, "--out", tmp_path / "a")
    assert found == json.loads((tmp_path / "a/summary.json").read_text()) | {"run": str(tmp_path / "a")}
    quiet = run("train", recipe, "--out", tmp_path / "b", "-q")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    again = document("train", recipe, "--out", tmp_path / "a", "--resume", "-q")
    assert again == found


def test_a_finished_run_is_left_as_it_is(recipe: Path, trained: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    result = run("train", trained.parent / "tiny.yaml", "--out", trained, "--resume")
    assert "finished already" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()} == before


def test_an_existing_folder_names_both_ways_on(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    message = run("train", recipe, "--out", tmp_path / "run", code=2).stderr
    assert "--resume" in message
    assert "--out" in message


def test_a_place_that_cannot_be_written_is_refused_before_training(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("train", recipe, "--out", tmp_path / "file" / "run", code=2)
    assert str(tmp_path / "file") in result.stderr


def test_five_mistakes_come_at_once_a_line_each_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "five.yaml"
    path.write_text(FIVE_MISTAKES)
    for verb in ("train", "check"):
        result = run(verb, path, code=2)
        lines = result.stderr.splitlines()
        assert [line.split(": ")[0] for line in lines] == [f"{path}:{number}" for number in (3, 6, 12, 13, 14)]
        for key, line in zip(("sead", "kind", "epochs", "schedule", "batch_sizes"), lines, strict=True):
            assert key in line.split(": ")[1]
        assert result.stdout == ""


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("tasks.reviews.files.train=none.csv", "no file"),
        ("tasks.reviews.target=stars", "no column 'stars'"),
        ("tasks.reviews.labels={0: awful, 1: poor}", "unknown label"),
        ("encoder.checkpoint=no/such", "no/such"),
        ("stages.0.epochs=none", "stages.0.epochs"),
    ],
)
def test_what_is_wrong_with_data_and_encoder_is_told(
    override: str, expected: str, recipe: Path, tmp_path: Path
) -> None:
    result = run("train", recipe, "--set", override, "--out", tmp_path / "run", code=2)
    assert expected in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "run").exists()


def test_overrides_seed_and_data_dir_reach_the_run(recipe: Path, tmp_path: Path) -> None:
    sample = yaml.safe_load(recipe.read_text())["data_dir"]
    words = ("--seed", "7", "--set", "stages.0.epochs=1", "--data-dir", sample, "--set", "name=other")
    found = document("train", recipe, *words, "--out", tmp_path / "run")
    assert (found["seed"], found["name"]) == (7, "other")
    assert yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())["stages"][0]["epochs"] == 1


def test_a_hub_name_without_network_is_told_within_seconds(recipe: Path, tmp_path: Path) -> None:
    variables = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    words = [COMMAND, "train", recipe, "--set", "encoder.checkpoint=acme/tiny", "--out", tmp_path / "run", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "'acme/tiny': the hub at http://127.0.0.1:9 cannot be reached" in done.stderr
    assert "embedded" in done.stderr


def test_a_plugin_that_prints_leaves_the_document_pure(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chatty_plugin.py").write_text("print('hello from the plugin')\nMEMBERS = {}\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = (
        "train",
        recipe,
        "--set",
        "plugins=[chatty_plugin]",
        "--set",
        "stages.0.epochs=1",
        "--out",
        tmp_path / "run",
    )
    result = run(*words, "--json")
    assert json.loads(result.stdout)["run"] == str(tmp_path / "run")
    assert "hello from the plugin" in result.stderr


def test_a_stopped_run_says_how_it_goes_on_and_does(encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    recipe = write_recipe(folder / "tiny.yaml", encoder, epochs=2000)
    words = [COMMAND, "train", recipe, "--out", folder / "run", "--set", "stages.0.checkpoint_every_steps=2"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    metrics = folder / "run/metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count('"step"') > 3):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    again = shlex.split(stderr.splitlines()[-1])
    assert again == ["manyhead", *map(str, words[1:]), "--resume"]
    done = run(*again[1:], "--set", "stages.0.max_steps=1", code=2)
    assert "another recipe; the difference is" in done.stderr


def test_a_terminal_gets_a_screen_on_stderr(recipe: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = [COMMAND, "train", recipe, "--out", tmp_path / "run"]
    variables = os.environ | {"TERM": "xterm-256color"}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=theirs, stdin=theirs, env=variables)
    os.close(theirs)
    drawn = b""
    with contextlib.suppress(OSError):  # what a terminal without a program says
        while piece := os.read(ours, 65_536):
            drawn += piece
    os.close(ours)
    stdout = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0
    assert "majority baseline" in stdout
    assert "\x1b" not in stdout
    for shown in ("examples/s", "left about", "best", "dev after step"):
        assert shown in drawn.decode()
    assert drawn.rfind(b"\x1b[?25h") > drawn.rfind(b"\x1b[?25l")  # the cursor is there again
