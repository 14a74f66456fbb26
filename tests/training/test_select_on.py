"""Runs whose dev rows are divided: some pick the checkpoint, the others are scored."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from manyhead.build import Run, train
from manyhead.cli.evaluate import open_examples, score_examples
from manyhead.cli.stored import find_model
from manyhead.data.selection import halves_of
from manyhead.errors import DataError, StoppedError
from manyhead.recipe.load import load_recipe
from manyhead.training.observer import Observer
from tiny import tiny_encoder, tiny_recipe


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def divided(encoder: Path, out: Path, **changes: Any) -> Run:
    recipe = tiny_recipe(encoder) | {"select_on": {"dev": 0.5}} | changes
    return train(load_recipe(recipe), out=out)


def prediction_rows(run: Path, task: str) -> list[dict[str, str]]:
    with (run / "predictions" / f"{task}.dev.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == kind]


def test_one_half_picks_and_the_other_is_scored(encoder: Path, tmp_path: Path) -> None:
    done = divided(encoder, tmp_path / "run")
    whole = train(load_recipe(tiny_recipe(encoder)), out=tmp_path / "whole")
    recipe = load_recipe(done.path / "recipe.yaml").recipe
    for task in recipe.tasks:
        picking, scored = halves_of(recipe, task, 12)
        everything = [row["id"] for row in prediction_rows(whole.path, task)]
        assert [row["id"] for row in prediction_rows(done.path, task)] == [everything[row] for row in scored]
        assert done.summary["dev"]["tasks"][task]["n"] == len(scored) == 6
        assert all(line["tasks"][task]["n"] == len(picking) for line in records(done.path, "eval"))
    best = max(line["overall"] for line in records(done.path, "eval"))
    assert done.summary["best"]["score"] == best != done.summary["dev"]["overall"]
    # Training itself does not know which rows are looked at.
    first, other = ([line["losses"] for line in records(run.path, "step")] for run in (done, whole))
    assert first == other


def test_evaluate_scores_the_same_half(encoder: Path, tmp_path: Path) -> None:
    done = divided(encoder, tmp_path / "run")
    stored = find_model(str(done.path))
    found = score_examples(stored, open_examples(stored, [], "dev", None), note=lambda _: None)
    assert found.as_dict() == done.summary["dev"]
    train_rows = score_examples(stored, open_examples(stored, [], "train", None), note=lambda _: None)
    assert {scores["n"] for scores in train_rows.tasks.values()} == {24}


def test_stopped_and_resumed_it_ends_the_same(encoder: Path, tmp_path: Path) -> None:
    whole = divided(encoder, tmp_path / "whole")

    class Stopping(Observer):
        steps = 0

        def stepped(self, record: object) -> None:
            self.steps += 1
            if self.steps == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    loaded = load_recipe(tiny_recipe(encoder) | {"select_on": {"dev": 0.5}})
    with pytest.raises(StoppedError):
        train(loaded, out=tmp_path / "parted", observer=Stopping())
    parted = train(loaded, out=tmp_path / "parted", resume=True)
    for name in ("predictions/reviews.dev.csv", "model/weights.safetensors"):
        assert (whole.path / name).read_bytes() == (parted.path / name).read_bytes()
    assert whole.summary["dev"] == parted.summary["dev"]
    assert whole.summary["best"] == parted.summary["best"]


def test_too_few_rows_are_refused_before_training(encoder: Path, tmp_path: Path) -> None:
    recipe: dict[str, Any] = {**tiny_recipe(encoder), "select_on": {"dev": 0.5}}
    recipe["tasks"]["reviews"]["limit"] = {"train": 24, "dev": 1}
    with pytest.raises(DataError, match=r"select_on.dev: 1 dev rows of reviews cannot be divided"):
        train(load_recipe(recipe), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_predictions_hold_the_texts_of_their_rows(encoder: Path, tmp_path: Path) -> None:
    done = divided(encoder, tmp_path / "run")
    recipe = load_recipe(done.path / "recipe.yaml").recipe
    source = Path(recipe.data_dir) / "questions.dev.csv"
    with source.open(encoding="utf-8", newline="") as file:
        texts = {row["id"]: (row["question1"], row["question2"]) for row in csv.DictReader(file)}
    for row in prediction_rows(done.path, "questions"):
        assert (row["text_1"], row["text_2"]) == texts[row["id"]]
    assert all(" " in row["text"] for row in prediction_rows(done.path, "reviews"))


def test_predictions_do_without_texts_that_are_gone(encoder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    sample = Path(tiny_recipe(encoder)["data_dir"])
    for path in sample.glob("*.csv"):
        (data / path.name).write_bytes(path.read_bytes())

    class Changing(Observer):
        def stepped(self, record: object) -> None:
            (data / "reviews.dev.csv").write_text("id,text,grade\n1,another text,2\n")
            (data / "questions.dev.csv").unlink(missing_ok=True)

    loaded = load_recipe(tiny_recipe(encoder) | {"data_dir": str(data)})
    done = train(loaded, out=tmp_path / "run", observer=Changing())
    assert "text" not in prediction_rows(done.path, "reviews")[0]
    assert "text_1" not in prediction_rows(done.path, "questions")[0]
    assert "text_1" in prediction_rows(done.path, "sentences")[0]
