"""A report that cannot be written: the run is finished without it, and says so."""

import json
import sys
from pathlib import Path

import pytest
from faulty import AtVisit, Events, differences, ending, run

from manyhead.cli.training import next_steps
from manyhead.faults import injected
from tiny import tiny_recipe


@pytest.mark.parametrize("cause", ["a folder in the way", "a broken package"])
def test_a_run_is_finished_without_its_report(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    recipe, told = tiny_recipe(encoder, epochs=1), Events()
    run(recipe, tmp_path / "whole")
    if cause == "a broken package":
        monkeypatch.delitem(sys.modules, "manyhead.report.page")
        monkeypatch.setitem(sys.modules, "jinja2", None)
        expected = "no report: ModuleNotFoundError: import of jinja2 halted"
        hook = AtVisit("finish: begins", lambda _: None)
    else:
        expected = f"no report: {tmp_path / 'run' / 'report.html'} could not be written: Is a directory"
        hook = AtVisit("finish: begins", lambda folder: (folder.path / "report.html").mkdir())
    with injected(hook):
        path = run(recipe, tmp_path / "run", told).path
    assert json.loads((path / "state.json").read_text())["status"] == "finished"
    assert differences(ending(tmp_path / "whole"), ending(path)) == []
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    (text,) = [line["text"] for line in lines if line["kind"] == "event"]
    assert text.startswith(expected)
    assert text.endswith(f"training is not harmed; manyhead report {path} writes it")
    assert text in told.texts
    assert not [line for line in next_steps(path, "reviews") if line.startswith("report:")]
