"""A whole run on a tiny encoder: repeatable, resumable to the same bits, honest when it diverges."""

import csv
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from manyhead.build import Run, new_model, read_parts, train
from manyhead.errors import CheckpointError, DivergedError, StoppedError, UsageError
from manyhead.inference.predictor import Model
from manyhead.recipe.load import load_recipe
from manyhead.training.checkpoint import checkpoint_folders, damage
from manyhead.training.loop import StepRecord
from manyhead.training.observer import Observer, StageInfo
from tiny import tiny_encoder, tiny_recipe


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


class Watcher(Observer):
    """Remembers what it is told, and may do something at a step."""

    def __init__(self, at: int = -1, do: Callable[[], None] = lambda: None) -> None:
        self.at, self.do = at, do
        self.steps: list[StepRecord] = []
        self.stages: list[StageInfo] = []
        self.events: list[str] = []
        self.summary: Mapping[str, Any] = {}

    def stage_started(self, stage: StageInfo) -> None:
        self.stages.append(stage)

    def stepped(self, record: StepRecord) -> None:
        self.steps.append(record)
        if len(self.steps) == self.at:
            self.do()

    def event(self, text: str) -> None:
        self.events.append(text)

    def finished(self, summary: Mapping[str, Any]) -> None:
        self.summary = summary


def run(
    recipe: Mapping[str, Any], out: Path, watcher: Observer | None = None, *, resume: bool = False, **overrides: Any
) -> Run:
    loaded = load_recipe(recipe, overrides=overrides)
    return train(loaded, out=out, observer=watcher, resume=resume)


def records(path: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without clock values and events: what two equal runs share."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines if line["kind"] != "event"]


def last_bytes(path: Path) -> list[bytes]:
    """The newest checkpoint's weights and optimiser, and the shipped model's weights."""
    newest = checkpoint_folders(path / "checkpoints")[-1]
    files = [newest / "weights.safetensors", newest / "optimizer.safetensors", path / "model" / "weights.safetensors"]
    return [file.read_bytes() for file in files]


def test_a_run_folder_holds_what_was_promised(encoder: Path, tmp_path: Path) -> None:
    watcher = Watcher()
    done = run(tiny_recipe(encoder), tmp_path / "run", watcher)
    names = {path.name for path in done.path.iterdir()}
    assert {
        "recipe.yaml",
        "state.json",
        "metrics.jsonl",
        "checkpoints",
        "best",
        "model",
        "summary.json",
        "predictions",
        "report.html",
    } <= names
    assert not [name for name in names if name.startswith(".tmp")]
    assert json.loads((done.path / "state.json").read_text())["status"] == "finished"
    assert (done.path / "best").is_symlink()
    assert damage((done.path / "best").resolve()) is None
    assert watcher.stages[0].epoch_examples == {"reviews": 24, "questions": 24, "sentences": 24}
    assert [step.examples for step in watcher.steps] == [{"reviews": 8, "questions": 8, "sentences": 8}] * 6
    kinds = [record["kind"] for record in records(done.path)]
    assert kinds == ["step", "step", "step", "eval"] * 2
    assert done.summary["dev"]["tasks"].keys() == {"reviews", "questions", "sentences"}
    assert done.summary == json.loads((done.path / "summary.json").read_text()) == watcher.summary


def test_summary_scores_are_those_of_the_best_step_and_of_the_shipped_model(encoder: Path, tmp_path: Path) -> None:
    done = run(tiny_recipe(encoder, epochs=3), tmp_path / "run")
    evaluations = [record for record in records(done.path) if record["kind"] == "eval"]
    best = max(evaluations, key=lambda record: record["overall"])
    assert done.summary["dev"]["overall"] == best["overall"]
    assert done.summary["best"]["step"] == best["step"]
    weights = load_file(done.path / "model" / "weights.safetensors")
    kept = load_file(done.path / "best" / "weights.safetensors")
    assert all(torch.equal(weights[name], kept[name]) for name in kept)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_run_twice_is_the_same_bit_for_bit(encoder: Path, tmp_path: Path, precision: str) -> None:
    first = run(tiny_recipe(encoder), tmp_path / "a", precision=precision)
    second = run(tiny_recipe(encoder), tmp_path / "b", precision=precision)
    assert last_bytes(first.path) == last_bytes(second.path)
    assert records(first.path) == records(second.path)
    other = run({**tiny_recipe(encoder), "seed": 14}, tmp_path / "c", precision=precision)
    assert last_bytes(first.path) != last_bytes(other.path)


@pytest.mark.parametrize("schedule", ["interleaved", "shuffled", "sequential"])
@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_a_stopped_run_goes_on_to_the_same_bits(encoder: Path, tmp_path: Path, schedule: str, stop_at: int) -> None:
    recipe = tiny_recipe(encoder, schedule=schedule, epochs=3)
    whole = run(recipe, tmp_path / "whole")
    stopping = Watcher(stop_at, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StoppedError, match="--resume") as stopped:
        run(recipe, tmp_path / "parted", stopping)
    assert stopped.value.exit_code == 143
    assert len(stopping.steps) == stop_at
    assert not (tmp_path / "parted" / "model").exists()
    if (tmp_path / "parted" / "best").exists():
        assert len(Model.load(tmp_path / "parted").predict("reviews", ["a film", "a meal"])) == 2
    parted = run(recipe, tmp_path / "parted", resume=True)
    assert last_bytes(whole.path) == last_bytes(parted.path)
    assert records(whole.path) == records(parted.path)
    assert whole.summary["dev"] == parted.summary["dev"]


def test_steps_after_the_last_checkpoint_are_taken_back_and_repeated(encoder: Path, tmp_path: Path) -> None:
    """As after a kill: the log is longer than the newest checkpoint says."""
    recipe = tiny_recipe(encoder, epochs=3)
    whole = run(recipe, tmp_path / "whole")

    def fail() -> None:
        raise KeyError("as if the power went")

    with pytest.raises(KeyError):
        run(recipe, tmp_path / "parted", Watcher(5, fail))
    assert len([record for record in records(tmp_path / "parted") if record["kind"] == "step"]) == 5
    run(recipe, tmp_path / "parted", resume=True)
    assert records(whole.path) == records(tmp_path / "parted")
    assert last_bytes(whole.path) == last_bytes(tmp_path / "parted")


def test_resuming_a_finished_run_changes_nothing(encoder: Path, tmp_path: Path) -> None:
    done = run(tiny_recipe(encoder), tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in done.path.rglob("*")}
    again = run(tiny_recipe(encoder), tmp_path / "run", resume=True)
    assert again.summary == done.summary
    assert before == {path: path.stat().st_mtime_ns for path in done.path.rglob("*")}


def test_an_existing_run_is_refused_and_another_recipe_cannot_resume_it(encoder: Path, tmp_path: Path) -> None:
    run(tiny_recipe(encoder), tmp_path / "run")
    with pytest.raises(UsageError, match=r"--resume.*--out"):
        run(tiny_recipe(encoder), tmp_path / "run")
    with pytest.raises(UsageError, match="seed: 99"):
        run({**tiny_recipe(encoder), "seed": 99}, tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(encoder, epochs=3)
    whole = run(recipe, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "parted", Watcher(7, lambda: os.kill(os.getpid(), signal.SIGINT)))
    newest = checkpoint_folders(tmp_path / "parted" / "checkpoints")[-1]
    weights = bytearray((newest / "weights.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (newest / "weights.safetensors").write_bytes(weights)
    watcher = Watcher()
    run(recipe, tmp_path / "parted", watcher, resume=True)
    assert any(newest.name in event and "sha256" in event for event in watcher.events)
    assert last_bytes(whole.path) == last_bytes(tmp_path / "parted")


def test_no_usable_checkpoint_is_an_error_not_a_silent_restart(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(encoder, epochs=3)
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "run", Watcher(2, lambda: os.kill(os.getpid(), signal.SIGINT)))
    for folder in checkpoint_folders(tmp_path / "run" / "checkpoints"):
        (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="none of the checkpoints"):
        run(recipe, tmp_path / "run", resume=True)


def test_accumulation_equals_the_unsplit_step(encoder: Path, tmp_path: Path) -> None:
    """With dropout off and losses that are means over examples; batches that do not divide evenly included."""
    off: dict[str, Any] = {
        "encoder.dropout": 0.0,
        "tasks.reviews.head.dropout": 0.0,
        "tasks.questions.head.dropout": 0.0,
    }
    recipe = tiny_recipe(encoder, batch_size=7, optimizer={"kind": "adamw", "lr": 1e-3})
    whole = run(recipe, tmp_path / "whole", **off)
    parts = run(recipe, tmp_path / "parts", **off, **{"stages.0.accumulation": 3})
    for one, other in zip(records(whole.path), records(parts.path), strict=True):
        if one["kind"] == "step":
            assert one["examples"] == other["examples"]
            assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
            for task, loss in one["losses"].items():
                assert loss == pytest.approx(other["losses"][task], rel=1e-4)


def test_training_one_task_leaves_the_others_own_parameters_alone(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(encoder, tasks=["reviews"], optimizer={"kind": "adamw", "lr": 1e-3, "weight_decay": 0.1})
    done = run(recipe, tmp_path / "run")
    other = run(tiny_recipe(encoder, tasks=["questions"]), tmp_path / "other")
    trained = load_file(done.path / "model" / "weights.safetensors")
    untouched = load_file(other.path / "model" / "weights.safetensors")
    loaded = load_recipe(recipe)
    start = new_model(read_parts(loaded.recipe, loaded, Observer())).state_dict()
    heads = [name for name in start if name.startswith("heads.")]
    for name in heads:
        same = torch.equal(trained[name], start[name])
        assert same == (not name.startswith("heads.task_reviews"))
        assert torch.equal(untouched[name], start[name]) == (not name.startswith("heads.task_questions"))


def test_a_loss_that_is_no_number_stops_before_the_update(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(encoder, optimizer={"kind": "adamw", "lr": 1e30}, clip_norm=None, rate="constant")
    with pytest.raises(DivergedError, match=r"step \d+.*reviews") as diverged:
        run(recipe, tmp_path / "run")
    assert diverged.value.exit_code == 3
    assert json.loads((tmp_path / "run" / "state.json").read_text())["status"] == "diverged"


def test_early_stopping_ends_the_stage_and_says_so(encoder: Path, tmp_path: Path) -> None:
    watcher = Watcher()
    recipe = tiny_recipe(encoder, epochs=30, optimizer={"kind": "adamw", "lr": 1e-12}, early_stopping={"patience": 2})
    run(recipe, tmp_path / "run", watcher)
    assert len(watcher.steps) == 9
    assert any("ended early" in event for event in watcher.events)


def test_stages_follow_each_other_from_the_best_weights(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(encoder, epochs=1, name="first")
    second = {**recipe["stages"][0], "name": "polish", "tasks": ["reviews"], "select_by": "reviews.accuracy"}
    recipe["stages"].append(second)
    whole = run(recipe, tmp_path / "whole")
    assert [record["stage"] for record in records(whole.path)] == ["first"] * 4 + ["polish"] * 4
    for stop_at in (2, 3, 5):
        path = tmp_path / f"parted{stop_at}"
        with pytest.raises(StoppedError):
            run(recipe, path, Watcher(stop_at, lambda: os.kill(os.getpid(), signal.SIGINT)))
        run(recipe, path, resume=True)
        assert last_bytes(whole.path) == last_bytes(path)
        assert records(whole.path) == records(path)


def test_max_steps_ends_early_with_an_evaluation_and_a_checkpoint(encoder: Path, tmp_path: Path) -> None:
    done = run(tiny_recipe(encoder, max_steps=2), tmp_path / "run")
    assert [record["kind"] for record in records(done.path)] == ["step", "step", "eval"]
    assert [path.name for path in checkpoint_folders(done.path / "checkpoints")] == ["step-00000002"]


def test_without_dev_the_last_weights_are_kept(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(encoder)
    for task in recipe["tasks"].values():
        del task["files"]["dev"]
        task["limit"] = {"train": 24}
    done = run(recipe, tmp_path / "run")
    assert done.summary["dev"] is None
    assert done.summary["best"]["step"] == 6
    assert (done.path / "model" / "weights.safetensors").exists()


def test_training_goes_on_from_an_own_model_and_keeps_heads_of_equal_labels(encoder: Path, tmp_path: Path) -> None:
    first = run(tiny_recipe(encoder), tmp_path / "first")
    recipe = tiny_recipe(first.path)
    recipe["tasks"]["reviews"]["labels"] = {4: "excellent", 3: "good", 2: "mixed", 1: "poor", 0: "awful"}
    loaded = load_recipe(recipe)
    model = new_model(read_parts(loaded.recipe, loaded, Observer()))
    before = load_file(first.path / "model" / "weights.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (not name.startswith("heads.task_reviews"))


def test_dev_predictions_file_agrees_with_the_model(encoder: Path, tmp_path: Path) -> None:
    done = run(tiny_recipe(encoder), tmp_path / "run")
    model = Model.load(done.path)
    with (done.path / "predictions" / "reviews.dev.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (Path(load_recipe(tiny_recipe(encoder)).recipe.data_dir) / "reviews.dev.csv").open(newline="") as file:
        source = list(csv.DictReader(file))[:12]
    assert [row["id"] for row in rows] == [row["id"] for row in source]
    assert [row["target"] for row in rows] == [row["grade"] for row in source]
    found = model.predict("reviews", [row["text"] for row in source])
    assert [int(row["prediction"]) for row in rows] == [prediction.value for prediction in found]
    for row, prediction in zip(rows, found, strict=True):
        assert prediction.probabilities is not None
        given = [float(row[f"probability_{label}"]) for label in prediction.probabilities]
        np.testing.assert_allclose(given, list(prediction.probabilities.values()), atol=1e-5)
