"""Hostile data by the public ways: nothing crashes, no row is lost unseen, and no bad row harms its neighbours."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import ANY_TEXT, TEXTS, make_recipe, make_task, shown
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from manyhead.build import train
from manyhead.cli.main import app
from manyhead.data.cache import load_examples
from manyhead.data.check import check_data
from manyhead.data.examples import read_examples
from manyhead.inference.predictor import Model
from manyhead.recipe.load import load_recipe
from tiny import SAMPLE, tiny_encoder, tiny_recipe, tiny_tokenizer

USUAL = "the film is good"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("hostile")
    return train(load_recipe(tiny_recipe(tiny_encoder(base / "encoder"), epochs=1)), out=base / "run").path


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return Model.load(folder)


def manyhead(*words: object, stdin: str | bytes | None = None, code: int = 0) -> tuple[str, str]:
    """What a command prints on stdout and on stderr."""
    result = CliRunner().invoke(app, [str(word) for word in words], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, (result.exit_code, result.stderr[-2000:])
    return result.stdout, result.stderr


def numbers(model: Model, task: str, texts: list[Any]) -> np.ndarray:
    found, _ = model.predict_arrays(task, texts)
    values = found.probabilities if found.probabilities is not None else found.scores
    assert values is not None
    return values


@pytest.mark.parametrize("task", ["reviews", "questions", "sentences"])
def test_hostile_neighbours_change_no_prediction(model: Model, task: str) -> None:
    """To the last bit but one: matrix products of one row and of many may add in another order."""
    is_pair = len(model.tasks[task].text) == 2
    hostile = [(text, USUAL) if is_pair else text for text in TEXTS.values()]
    usual = (USUAL, USUAL) if is_pair else USUAL
    together = numbers(model, task, [usual, *hostile, usual])
    assert np.isfinite(together).all()
    alone = np.stack([numbers(model, task, [text])[0] for text in [usual, *hostile, usual]])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(together[0], together[-1])


@settings(max_examples=25)
@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=6))
def test_any_text_is_predicted_the_same_alone_and_in_any_batch(model: Model, texts: list[str]) -> None:
    together = numbers(model, "reviews", texts)
    np.testing.assert_allclose(together, [numbers(model, "reviews", [text])[0] for text in texts], rtol=0, atol=1e-6)
    np.testing.assert_allclose(together, numbers(model, "reviews", texts[::-1])[::-1], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(together, numbers(model, "reviews", [shown(text) for text in texts]))


def as_csv(rows: list[tuple[str, ...]]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_every_hostile_row_of_a_pipe_is_predicted(folder: Path, form: str) -> None:
    texts = [USUAL, *TEXTS.values(), USUAL]
    rows = [(str(number), text) for number, text in enumerate(texts)]
    if form == "csv":
        stdin = as_csv([("id", "text"), *rows]).encode("utf-8", "surrogatepass")
    else:
        stdin = "".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in rows).encode()
    out, told = manyhead("predict", folder, "--task", "reviews", "--format", "jsonl", stdin=stdin)
    found = [json.loads(line) for line in out.split("\n")[:-1]]
    assert [row["id"] for row in found] == [number for number, _ in rows]
    assert all(row["prediction"] is not None for row in found)
    if form == "jsonl":
        assert [row["text"] for row in found] == [shown(text) for text in texts]
    assert {**found[0], "id": ""} == {**found[-1], "id": ""}
    assert "broken characters were replaced by U+FFFD" in told
    assert {row["truncated"] for row in found} == {True, False}


def test_the_command_itself_takes_bytes_of_any_kind(folder: Path) -> None:
    """In a process of its own, where stdin and stdout are those of a shell."""
    command = [Path(sys.executable).with_name("manyhead"), "predict", folder, "--task", "reviews", "--format", "jsonl"]
    stdin = b'\xef\xbb\xbfid,text\r\n1,caf\xe9\r\n2,\xed\xa0\x80\r\n3,a\0b\r\n4\r\n5,"open\r\n6,fine\r\n'
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [row["id"] for row in found] == ["1", "2", "3", "4", "5", "6"]
    assert [row["prediction"] is None for row in found] == [False, False, False, True, False, False]
    assert b"stdin:5: 1 cell instead of 2" in done.stderr
    assert b"Traceback" not in done.stderr


def test_odd_values_beside_the_text_are_written(folder: Path, tmp_path: Path) -> None:
    row = '{"text": "fine", "list": [NaN, 1e999], "number": NaN, "half\\ud800": {"\\ud800": 1}}\n'
    for name in ("out.csv", "out.jsonl"):
        manyhead("predict", folder, "--task", "reviews", "--output", tmp_path / name, stdin=row)
    found = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert (found["list"], found["number"], found["half\ufffd"]) == ([None, None], None, {"\ufffd": 1})


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_pipe_may_end_its_lines_as_a_file_may(folder: Path, tmp_path: Path, end: str) -> None:
    content = "".join(f"{line}{end}" for line in ("id,text", "1,good", "2,bad")).encode()
    (tmp_path / "a.csv").write_bytes(content)
    words = ("predict", folder, "--task", "reviews")
    piped, _ = manyhead(*words, stdin=content)
    assert piped == manyhead(*words, "--input", tmp_path / "a.csv")[0]
    assert [row["id"] for row in csv.DictReader(io.StringIO(piped))] == ["1", "2"]


def test_texts_of_one_column_need_no_quotes_in_a_pipe(folder: Path) -> None:
    out, told = manyhead("predict", folder, "--task", "reviews", stdin="text\nHello, you; all\n\nfine\n")
    found = list(csv.DictReader(io.StringIO(out)))
    assert [row["text"] for row in found] == ["Hello, you; all", "", "fine"]
    assert all(row["prediction"] for row in found)
    assert told == ""


@pytest.mark.parametrize("charset", ["undefined", "base64", "idna", "no-such", "utf-16"])
def test_a_pipe_that_cannot_be_decoded_is_told(folder: Path, charset: str) -> None:
    setting = f"tasks.reviews.charset={charset}"
    stdin = b"text\n\xff\xe9, a\n"
    _, told = manyhead("predict", folder, "--task", "reviews", "--set", setting, stdin=stdin, code=2)
    assert f"cannot be read in charset '{charset}'" in told


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_hostile_rows_are_trained_on_or_listed(tmp_path: Path, kind: str) -> None:
    """Each text is used as it is, or rejected for being empty; counts add up in the check and in the tokens."""
    texts = [text for text in TEXTS.values() if kind == "jsonl" or "\r" not in text]
    if kind == "csv":
        content = as_csv([("text", "label"), *((text, "1.0") for text in texts), ("x", "7"), (USUAL, "0")])
    else:
        rows = [*((text, 1.0) for text in texts), ("x", 7), (USUAL, "0")]
        content = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    path = tmp_path / f"train.{kind}"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    task = make_task(files={"train": path.name})
    examples = read_examples("t", task, "train", path, seed=1)
    used = [example.texts[0] for example in examples]
    assert used == [shown(text) for text in texts if text.strip()] + [USUAL]
    tally = examples.tally()
    assert tally.rejects.counts == {"empty text": 2, "unknown label '7' (labels: 0, 1)": 1}
    assert tally.rows == len(texts) + 2
    assert tally.replaced == 101
    data = load_examples(examples, tiny_tokenizer(), max_tokens=16, cache_dir=tmp_path / "cache")
    assert (data.n_examples, data.tally) == (len(used), tally)
    told = "\n".join(map(str, data.warnings))
    assert "3 of" in told
    assert "101 lone surrogates replaced by U+FFFD" in told
    (split,) = check_data(make_recipe(tmp_path, t=task)).splits
    assert (split.used, split.rejected, split.classes) == (len(used), 3, {"bad": 1, "good": len(used) - 1})


def hostile_sample(folder: Path) -> Path:
    """The sample with rows cut short, labels as floats and unknown, one class in train, and classes missing in dev."""
    folder.mkdir()
    for path in SAMPLE.glob("*.csv"):
        (folder / path.name).write_bytes(path.read_bytes())
    for split, grade in (("train", "3.0"), ("dev", "4")):
        lines = [f"{number},a {split} text number {number},{grade}" for number in range(30)]
        lines += ["x", "y,one cell,too,many", "z,odd,9"]
        (folder / f"reviews.{split}.csv").write_text("\n".join(["id,text,grade", *lines, ""]), encoding="utf-8")
    return folder


def test_check_train_and_evaluate_say_what_is_odd(folder: Path, tmp_path: Path) -> None:
    data = hostile_sample(tmp_path / "data")
    words = ["tasks.reviews.max_rejected=0.2", "tasks.reviews.limit={}"]
    settings = [word for setting in words for word in ("--set", setting)]
    (tmp_path / "r.yaml").write_text((folder / "recipe.yaml").read_text("utf-8"), encoding="utf-8")
    out, told = manyhead("check", tmp_path / "r.yaml", *settings, "--data-dir", data, "--json")
    report = json.loads(out)
    train_split = next(
        each for each in report["data"]["splits"] if (each["task"], each["split"]) == ("reviews", "train")
    )
    assert (train_split["rows"], train_split["used"], train_split["rejected"]) == (33, 30, 3)
    assert [row["line"] for row in train_split["first_rejected"]] == [32, 33, 34]
    assert "all rows are of the class 'good'" in told
    assert "all rows are of the class 'excellent'" in told
    assert "3 of 33 rows rejected: " in told
    assert "1 cell instead of 3 (1 row, line 32)" in told
    scores = tmp_path / "same.csv"
    scores.write_text("sentence1,sentence2,similarity\na,b,3\nc,d,3\n", encoding="utf-8")
    out, told = manyhead("evaluate", folder, "--task", "sentences", "--file", scores, "--json")
    assert json.loads(out)["tasks"]["sentences"]["pearson"] == 0
    assert "sentences: all targets are the same, so correlations are 0 by definition" in told
    scores.write_text("sentence1,sentence2,similarity\na,b,1\na,b,3\n", encoding="utf-8")
    out, told = manyhead("evaluate", folder, "--task", "sentences", "--file", scores, "--json")
    assert json.loads(out)["tasks"]["sentences"]["pearson"] == 0
    assert "sentences: all predictions are the same, so correlations are 0 by definition" in told
