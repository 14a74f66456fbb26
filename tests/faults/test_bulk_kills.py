"""``manyhead predict`` killed anywhere: what --resume goes on with ends in the bytes of a job never stopped."""

import csv
import gzip
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_command import CHUNK_ROWS, Commands, Ended

import manyhead
from manyhead.build import train
from manyhead.recipe.load import load_recipe
from tiny import sample_texts, tiny_recipe

ROWS = 3 * CHUNK_ROWS + 3
"""A little more than three chunks."""


def places() -> list[str]:
    """All places that a job comes by."""
    folder = Path(manyhead.__file__).parent / "inference" / "bulk"
    code = "".join(path.read_text() for path in sorted(folder.glob("*.py")))
    return sorted({*re.findall(r"\bat\(\"(bulk: [a-z ]+)\"", code)})


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as started:
        yield started


@pytest.fixture(scope="module")
def model(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(load_recipe(tiny_recipe(encoder, max_steps=1)), out=tmp_path_factory.mktemp("bulk") / "run").path


def write_rows(path: Path, start: int = 0, rows: int = ROWS) -> Path:
    """Rows with quotes, breaks, and some that are broken."""
    texts = sample_texts()
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "text", "question1", "question2"))
        for number in range(start, start + rows):
            row = (number, f'{texts[number]}\n"quoted"', texts[number + 1], texts[number + 2])
            writer.writerow(row[: 2 if number % 7 == 5 else 4])
    return path


class Job:
    """One job in a folder of its own; all that it leaves is compared with ``whole``."""

    def __init__(self, commands: Commands, model: Path, source: Path, folder: Path, output: str) -> None:
        self.commands, self.folder = commands, folder
        self.words = ["predict", model, "--input", source, "--output", output, "--rejected", "rejected.jsonl"]
        whole = self.do("whole")
        assert whole.code == 0, whole.output
        self.visits = whole.visits
        self.whole = content(folder / "whole")

    def do(self, name: str, *more: object, place: str | None = None, visit: int = 1, number: int = 9) -> Ended:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        words = [folder / word if word in (self.words[5], self.words[7]) else word for word in self.words]
        return self.commands.do(*words, *more, place=place, visit=visit, number=number)

    def killed_and_resumed(self, name: str, kills: list[tuple[str, int]]) -> None:
        for place, visit in kills:
            assert self.do(name, "--resume", place=place, visit=visit).code == -signal.SIGKILL, (place, visit)
        done = self.do(name, "--resume")
        assert done.code == 0, done.output
        assert content(self.folder / name) == self.whole, kills


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def shards(folder: Path) -> Path:
    folder.mkdir()
    write_rows(folder / "a.csv")
    write_rows(folder / "b.csv.gz", ROWS, CHUNK_ROWS)
    write_rows(folder / "c.csv", 2 * ROWS, 0)
    return folder


def test_the_places_are_known() -> None:
    assert len(places()) == 9


@pytest.mark.parametrize("output", ["out.csv", "out.parquet"])
def test_a_killed_job_goes_on_to_the_same_bytes(commands: Commands, model: Path, tmp_path: Path, output: str) -> None:
    job = Job(commands, model, write_rows(tmp_path / "in.csv"), tmp_path, output)
    assert job.visits["bulk: rows written"] == -(-ROWS // CHUNK_ROWS)
    job.killed_and_resumed("killed", [("bulk: rows written", 2), ("bulk: committed", 1), ("bulk: all is written", 1)])
    job.killed_and_resumed("named", [("bulk: the output has its name", 1)])


@pytest.mark.slow
@pytest.mark.parametrize("output", ["out.csv", "out.jsonl.gz", "out.parquet", "folder"])
def test_killed_at_every_visit_of_every_place(commands: Commands, model: Path, tmp_path: Path, output: str) -> None:
    source = shards(tmp_path / "in") if output == "folder" else write_rows(tmp_path / "in.csv")
    job = Job(commands, model, source, tmp_path, output)
    assert {*places()} <= {*job.visits}
    points = [(place, visit) for place in places() for visit in range(1, job.visits[place] + 1)]
    for number, (place, visit) in enumerate(points):
        job.killed_and_resumed(f"once-{number}", [(place, visit)])
    job.killed_and_resumed("often", [("bulk: rows written", 1), *[("bulk: rows written", 2)] * 2])


def test_another_job_is_refused_and_told_apart(commands: Commands, model: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.csv")
    job = Job(commands, model, source, tmp_path, "out.csv")
    assert job.do("x", place="bulk: committed", visit=2).code == -signal.SIGKILL
    left = content(tmp_path / "x")
    assert json.loads(left["out.csv.part/journal.json"])["rows"] == 2 * CHUNK_ROWS
    for words, told in (
        ((), "go on with it by --resume, or remove it"),
        (("--resume", "--task", "reviews"), "--task: was ['all'], is ['reviews']"),
        (("--resume", "--set", "tasks.reviews.text=[question1]"), "--set: "),
        (("--resume", "--format", "jsonl"), "--format: was by ending, is jsonl"),
    ):
        refused = job.do("x", *words)
        assert (refused.code, told in refused.output) == (2, True), refused.output
    source.write_text(source.read_text().replace("5", "6", 1))
    refused = job.do("x", "--resume")
    assert (refused.code, "inputs: in.csv changed" in refused.output) == (2, True), refused.output
    assert content(tmp_path / "x") == left
    (tmp_path / "x/out.csv.part/rows/out.csv").write_text("")
    write_rows(source)
    refused = job.do("x", "--resume")
    assert (refused.code, "has 0 bytes of" in refused.output) == (4, True), refused.output


def test_an_output_may_take_the_place_of_its_input_across_a_kill(
    commands: Commands, model: Path, tmp_path: Path
) -> None:
    path, expected = write_rows(tmp_path / "rows.csv"), tmp_path / "expected.csv"
    words = ("predict", model, "--input", path)
    assert commands.do(*words, "--output", expected).code == 0
    killed = commands.do(*words, "--output", path, place="bulk: the output has its name")
    assert killed.code == -signal.SIGKILL
    assert commands.do(*words, "--output", path, "--resume").code == 0
    assert path.read_bytes() == expected.read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["expected.csv", "rows.csv"]


def test_ctrl_c_leaves_what_goes_on(commands: Commands, model: Path, tmp_path: Path) -> None:
    job = Job(commands, model, write_rows(tmp_path / "in.csv"), tmp_path, "out.csv")
    stopped = job.do("x", place="bulk: committed", visit=2, number=signal.SIGINT)
    assert (stopped.code, "--resume" in stopped.output) == (130, True), stopped.output
    job.killed_and_resumed("x", [])
