"""A whole run on a tiny encoder: repeatable, resumable to the same bits, honest when it diverges."""

import csv
import json
import os
import shutil
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
from manyhead.training.run_folder import RunFolder
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
        "maps.json",
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
    weights = load_file(done.path / "model" / "weights.safetensors")
    parameters = done.summary["parameters"]
    assert parameters["total"] == parameters["stages"]["multitask"] == sum(each.numel() for each in weights.values())
    assert parameters["per_task"]["reviews"] == sum(
        each.numel() for name, each in weights.items() if "task_reviews" in name
    )
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
    assert any("a second signal ends at once" in event for event in stopping.events)
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


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damaged_best_weights_are_never_shipped(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(encoder, epochs=3, optimizer={"kind": "adamw", "lr": 1e-12})
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "run", Watcher(7, lambda: os.kill(os.getpid(), signal.SIGINT)))
    best = (tmp_path / "run" / "best").resolve()
    assert best != checkpoint_folders(tmp_path / "run" / "checkpoints")[-1]
    flip_a_bit(best / "weights.safetensors")
    with pytest.raises(CheckpointError, match=best.name):
        run(recipe, tmp_path / "run", resume=True)
    assert not (tmp_path / "run" / "model").exists()


def test_each_kept_checkpoint_can_be_gone_on_from(encoder: Path, tmp_path: Path) -> None:
    """The best of an older checkpoint outlives a newer best, as long as that checkpoint is kept."""
    recipe = tiny_recipe(encoder, epochs=4, evaluate_every_steps=1)
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "run", Watcher(9, lambda: os.kill(os.getpid(), signal.SIGINT)))
    folders = checkpoint_folders(tmp_path / "run" / "checkpoints")
    for folder in folders[-2:]:
        best = json.loads((folder / "state.json").read_text())["progress"]["best_step"]
        assert folder.with_name(f"step-{best:08d}") in folders
    flip_a_bit(folders[-1] / "optimizer.safetensors")
    assert run(recipe, tmp_path / "run", resume=True).summary["steps"] == 12


def test_leftovers_of_a_killed_process_are_removed(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(encoder)
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "run", Watcher(4, lambda: os.kill(os.getpid(), signal.SIGINT)))
    (tmp_path / "run" / "checkpoints" / ".tmp-99999-step-00000005").mkdir()
    (tmp_path / "run" / ".tmp-99999-state.json").write_text("{")
    (tmp_path / "run" / "predictions").mkdir()
    (tmp_path / "run" / "predictions" / ".tmp-99999-reviews.dev.csv").write_text("id")
    done = run(recipe, tmp_path / "run", resume=True)
    assert not list(done.path.rglob(".tmp-*"))


def test_a_run_goes_on_without_the_encoder_it_began_with_and_with_its_own_hardware(tmp_path: Path) -> None:
    start = tiny_encoder(tmp_path / "start")
    recipe = tiny_recipe(start, epochs=3)
    whole = run(recipe, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "run", Watcher(4, lambda: os.kill(os.getpid(), signal.SIGINT)))
    start.rename(tmp_path / "gone")
    recipe["encoder"]["checkpoint"] = str(start)
    watcher = Watcher()
    done = run(recipe, tmp_path / "run", watcher, resume=True, threads=2)
    assert last_bytes(whole.path) == last_bytes(done.path)
    assert not any("not bit-exact" in event for event in watcher.events)


def test_other_versions_are_told(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(encoder)
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "run", Watcher(4, lambda: os.kill(os.getpid(), signal.SIGINT)))
    folder = RunFolder(tmp_path / "run")
    folder.update_state(versions={**folder.read_state()["versions"], "torch": "2.9.9"})
    watcher = Watcher()
    run(recipe, tmp_path / "run", watcher, resume=True)
    assert any(event.startswith("not bit-exact: torch was 2.9.9") for event in watcher.events)


def test_a_moved_data_folder_is_no_other_recipe(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(encoder)
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "run", Watcher(4, lambda: os.kill(os.getpid(), signal.SIGINT)))
    moved = shutil.copytree(recipe["data_dir"], tmp_path / "moved")
    run({**recipe, "data_dir": str(moved)}, tmp_path / "run", resume=True)


def test_changed_rows_are_refused(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(encoder)
    moved = shutil.copytree(recipe["data_dir"], tmp_path / "moved")
    recipe["data_dir"] = str(moved)
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "run", Watcher(4, lambda: os.kill(os.getpid(), signal.SIGINT)))
    text = (moved / "reviews.train.csv").read_text(encoding="utf-8")
    (moved / "reviews.train.csv").write_text(text.replace("the", "a"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"other data; the difference is\n-reviews\.train"):
        run(recipe, tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(encoder, epochs=3)
    whole = run(recipe, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "parted", Watcher(6, lambda: os.kill(os.getpid(), signal.SIGINT)))
    newest = checkpoint_folders(tmp_path / "parted" / "checkpoints")[-1]
    flip_a_bit(newest / "weights.safetensors")
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
    split: dict[str, Any] = {**off, "stages.0.accumulation": 3}
    parts = run(recipe, tmp_path / "parts", **split)
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
    start = new_model(read_parts(loaded, Observer())).state_dict()
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


def test_dev_predictions_that_are_no_numbers_end_the_run(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        encoder, optimizer={"kind": "adamw", "lr": 1e30}, clip_norm=None, rate="constant", evaluate_every_steps=1
    )
    with pytest.raises(DivergedError, match="dev predictions"):
        run(recipe, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "state.json").read_text())["status"] == "diverged"


LEGAL: dict[str, dict[str, Any]] = {
    "a task that is only evaluated": {"tasks.reviews.files": {"dev": "reviews.dev.csv"}},
    "a task that is only tested": {"tasks.reviews.files": {"test": "reviews.dev.csv"}},
    "dev out of train, uneven batches, more pieces than examples": {
        "tasks.reviews.files": {"train": "reviews.train.csv", "dev": {"from": "train", "fraction": 0.2}},
        "stages.0.batch_size": {"reviews": 3, "questions": 8, "sentences": 5},
        "stages.0.accumulation": 7,
    },
    "selected by a metric that is better when lower": {"stages.0.select_by": "sentences.mse"},
    "very short sequences": {"encoder.max_tokens": 4},
    "attention pooling of the layer before the last": {"encoder.pooling": "attention", "encoder.layer": -2},
    "convolution, no segments": {"encoder.pooling": "conv", "encoder.segment_ids": False},
    "the encoder's pooler": {"encoder.pooling": "pooler"},
    "balanced classes and scores": {"stages.0.balanced": ["reviews", "sentences"]},
    "weights of losses and classes": {
        "stages.0.balancing": {"kind": "weighted", "weights": {"sentences": 0.5}},
        "tasks.reviews.class_weights": "balanced",
        "tasks.reviews.label_smoothing": 0.1,
    },
    "rates by layer": {
        "stages.0.optimizer": {"kind": "adam", "lr": 1e-3, "head_lr": 1e-2, "layer_decay": 0.5, "weight_decay": 0.1}
    },
    "one row of training": {"tasks.reviews.limit": {"train": 1, "dev": 1}},
    "checkpoints between evaluations": {"stages.0.checkpoint_every_steps": 2, "stages.0.keep_checkpoints": 1},
}


@pytest.mark.parametrize("case", list(LEGAL))
def test_legal_recipes_train(encoder: Path, tmp_path: Path, case: str) -> None:
    done = run(tiny_recipe(encoder), tmp_path / "run", **LEGAL[case])
    assert json.loads((done.path / "state.json").read_text())["status"] == "finished"
    absent = {"reviews"} if case == "a task that is only tested" else set()
    assert done.summary["dev"]["tasks"].keys() == {"reviews", "questions", "sentences"} - absent
    assert len(Model.load(done.path).predict("reviews", ["a fine film"])) == 1


def test_one_task_alone_with_a_name_that_modules_use_themselves(encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(encoder)
    recipe["tasks"] = {"keys": recipe["tasks"]["reviews"]}
    assert run(recipe, tmp_path / "run").summary["dev"]["tasks"].keys() == {"keys"}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "more tokens than positions": ({"encoder.max_tokens": 100}, "max_tokens.*64"),
    "no such layer": ({"encoder.layer": 7}, "no layer 7"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_does_not_fit_the_encoder_leaves_no_folder(encoder: Path, tmp_path: Path, case: str) -> None:
    overrides, message = REFUSED[case]
    with pytest.raises(UsageError, match=message):
        run(tiny_recipe(encoder), tmp_path / "run", **overrides)
    assert not (tmp_path / "run").exists()


def test_broken_encoders_are_told_without_a_traceback(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(UsageError, match="cannot be read"):
        run(tiny_recipe(folder), tmp_path / "run")
    odd = tiny_encoder(tmp_path / "odd")
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps({**config, "num_attention_heads": "two"}))
    with pytest.raises(UsageError, match="cannot be used"):
        run(tiny_recipe(odd), tmp_path / "run")
    (odd / "config.json").write_text(json.dumps({**config, "model_type": "no-such-type"}))
    with pytest.raises(UsageError, match="no-such-type"):
        run(tiny_recipe(odd), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_saved_in_half_precision_trains_and_loads_in_fp32(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "half")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    done = run(tiny_recipe(folder), tmp_path / "run")
    loaded = Model.load(done.path, precision="fp32").network.state_dict()
    kept = load_file(done.path / "model" / "weights.safetensors")
    assert all(torch.equal(loaded[name], kept[name]) for name in kept)


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
    model = new_model(read_parts(loaded, Observer()))
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
