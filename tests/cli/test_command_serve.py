"""``manyhead serve``: what it prints, its signals and its exit codes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND, run

TOKEN = "a-token-of-some-length"


def ask(url: str, value: Any) -> Any:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(value).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
def test_one_line_says_where_it_is_and_signals_reload_and_end_it(trained: Path) -> None:
    words = [COMMAND, "serve", trained, "--port", "0", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = json.loads(process.stdout.readline())
        assert said["tasks"] == ["reviews", "questions", "sentences"]
        found = ask(f"{said['address']}/v1/predict/reviews", {"texts": ["a good film"]})
        assert found["predictions"][0]["label"] in ("awful", "poor", "mixed", "good", "excellent")
        process.send_signal(signal.SIGHUP)
        assert "reloaded" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout.read() == ""
        assert "Traceback" not in process.stderr.read()


def test_wrong_calls_end_with_what_is_wrong(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MANYHEAD_TOKEN", raising=False)
    assert "no token" in run("serve", trained, "--host", "0.0.0.0", code=2).stderr
    assert "cannot be read" in run("serve", trained, "--token-file", tmp_path / "none", code=2).stderr
    assert "above 0" in run("serve", trained, "--max-texts", "0", code=2).stderr
    assert "no model there" in run("serve", tmp_path, code=4).stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "another program has this port" in run("serve", trained, "--port", port, code=2).stderr


def test_a_damaged_model_is_not_served(trained: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained / "model", tmp_path / "model"))
    weights = copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10] + bytes(10))
    result = run("serve", copy, "--port", "0", code=4)
    assert "weights.safetensors" in result.stderr
    assert result.stdout == ""


@pytest.mark.slow
def test_without_the_extra_it_says_what_to_install(trained: Path, tmp_path: Path) -> None:
    program = (
        "import importlib.util as u, sys\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'uvicorn' else find(name, *a)\n"
        "from manyhead.cli.main import main\nsys.argv = ['manyhead', 'serve', sys.argv[1]]\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, trained], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 2
    assert "pip install 'manyhead[serve]'" in done.stderr
