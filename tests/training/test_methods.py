"""Stages and methods in whole runs: each resumes to the same bits, wherever it was stopped."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from manyhead.build import Run, train
from manyhead.errors import RecipeError, StoppedError, UsageError
from manyhead.recipe.load import load_recipe
from manyhead.training.checkpoint import checkpoint_folders
from manyhead.training.loop import StepRecord
from manyhead.training.observer import Observer
from tiny import tiny_encoder, tiny_recipe


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


class StopAt(Observer):
    """Asks to stop after some step of all stages."""

    def __init__(self, at: int) -> None:
        self.left = at

    def stepped(self, record: StepRecord) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def run(recipe: dict[str, Any], out: Path, observer: Observer | None = None, *, resume: bool = False) -> Run:
    return train(load_recipe(recipe), out=out, observer=observer, resume=resume)


def staged(
    encoder: Path, *stages: dict[str, Any], tasks: dict[str, dict[str, Any]] | None = None, **keys: Any
) -> dict[str, Any]:
    """The tiny recipe with other stages, and changes of its tasks and of its encoder."""
    recipe = tiny_recipe(encoder)
    common = {**recipe["stages"][0], "epochs": 1}
    recipe["stages"] = [{**common, **stage} for stage in stages]
    for name, changes in (tasks or {}).items():
        recipe["tasks"][name] |= changes
    recipe["encoder"] |= keys
    return recipe


def everything(path: Path) -> dict[str, bytes]:
    """What two equal runs share: the newest checkpoint less its clock, the model, the log less clock and events."""
    newest = checkpoint_folders(path / "checkpoints")[-1]
    found = {file.name: file.read_bytes() for file in newest.glob("*.safetensors")}
    found["model"] = (path / "model" / "weights.safetensors").read_bytes()
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in line.items() if key != "time"} for line in lines if line["kind"] != "event"]
    found["log"] = json.dumps(kept).encode()
    return found


TEACHING = (
    {"name": "reviews-alone", "tasks": ["reviews"]},
    {"name": "questions-alone", "tasks": ["questions"], "start": "encoder"},
    {"name": "student", "start": "encoder", "distillation": {"teachers": ["reviews-alone", "questions-alone"]}},
)
PROBE = {"name": "probe", "freeze": ["encoder.*"], "tasks": ["reviews", "questions"]}
SIAMESE = {"pairing": "siamese", "head": "cosine"}

METHODS: dict[str, dict[str, Any]] = {
    "teachers": {"stages": TEACHING},
    "probe then all": {"stages": (PROBE, {"name": "all"})},
    "adabelief": {"stages": ({"optimizer": {"kind": "adabelief", "lr": 1e-3}},)},
    "lion": {"stages": ({"optimizer": {"kind": "pytorch_optimizer", "name": "lion", "lr": 1e-3}},)},
    "pcgrad": {"stages": ({"balancing": "pcgrad"},)},
    "gradvac": {"stages": ({"balancing": "gradvac"},)},
    "dwa": {"stages": ({"balancing": "dwa", "epochs": 3},)},
    "uncertainty": {"stages": ({"balancing": "uncertainty"},)},
    "gls in pieces": {"stages": ({"balancing": "gls", "accumulation": 2},)},
    "clipping by task": {"stages": ({"clip_by": "task", "clip_norm": 0.5},)},
    "smart with bregman": {"stages": ({"regularisers": [{"kind": "smart", "bregman": 1.0}]},)},
    "r_drop": {"stages": ({"regularisers": ["r_drop"]},)},
    "triplets": {
        "stages": ({},),
        "tasks": {"questions": {"pairing": "siamese", "auxiliary": ["cosine_embedding", "cosine_triplet"]}},
    },
    "mnr": {"stages": ({},), "tasks": {"questions": {**SIAMESE, "loss": "mnr"}}},
    "masked words": {"stages": ({"name": "words", "pretraining": "mlm"}, {"name": "tasks"})},
    "contrastive": {
        "stages": (
            {"name": "texts", "pretraining": "simcse"},
            {"name": "pairs", "pretraining": "simcse_pairs", "tasks": ["questions", "sentences"]},
            {"name": "tasks"},
        )
    },
    "low-rank experts": {"stages": ({},), "experts": {"kind": "low_rank", "rank": 4}},
    "projected attention": {"stages": ({},), "experts": {"kind": "pal_parallel", "width": 8, "heads": 2}},
    "copies": {"stages": ({},), "experts": "copies"},
}


def recipe_of(encoder: Path, method: str) -> dict[str, Any]:
    found = METHODS[method]
    keys = {key: value for key, value in found.items() if key not in ("stages", "tasks")}
    return staged(encoder, *found["stages"], tasks=found.get("tasks"), **keys)


@pytest.mark.parametrize("method", list(METHODS))
def test_a_stopped_run_goes_on_to_the_same_bits(encoder: Path, tmp_path: Path, method: str) -> None:
    recipe = recipe_of(encoder, method)
    whole = run(recipe, tmp_path / "whole")
    expected = everything(whole.path)
    for stop_at in sorted({1, 2, whole.summary["steps"] // 2, whole.summary["steps"] - 1}):
        path = tmp_path / f"stopped-{stop_at}"
        with pytest.raises(StoppedError):
            run(recipe, path, StopAt(stop_at))
        run(recipe, path, resume=True)
        found = everything(path)
        assert found.keys() == expected.keys()
        assert [name for name in found if found[name] != expected[name]] == [], stop_at


def test_a_stage_starts_from_the_first_weights_where_it_says_so(encoder: Path, tmp_path: Path) -> None:
    alone = run(staged(encoder, {"name": "b", "tasks": ["questions"]}), tmp_path / "alone")
    after = run(
        staged(encoder, {"name": "a", "tasks": ["reviews"]}, {"name": "b", "tasks": ["questions"], "start": "encoder"}),
        tmp_path / "after",
    )
    first = load_file(tmp_path / "after" / "checkpoints" / "step-00000000" / "weights.safetensors")
    ended = load_file(after.path / "model" / "weights.safetensors")
    reviews = [name for name in ended if "task_reviews" in name]
    assert reviews
    assert all(torch.equal(ended[name], first[name]) for name in reviews)
    assert alone.summary["steps"] * 2 == after.summary["steps"]
    assert not torch.equal(
        ended["encoder.model.encoder.layer.0.output.dense.weight"],
        first["encoder.model.encoder.layer.0.output.dense.weight"],
    )


def test_frozen_parameters_stay_and_train_again_in_the_next_stage(encoder: Path, tmp_path: Path) -> None:
    recipe = staged(encoder, {**PROBE, "keep_checkpoints": 9}, {"name": "all"})
    recipe["stages"][1]["keep_checkpoints"] = 9
    done = run(recipe, tmp_path / "run")
    before = load_file(tmp_path / "run" / "checkpoints" / "step-00000003" / "weights.safetensors")
    after = load_file(done.path / "checkpoints" / "step-00000006" / "weights.safetensors")
    from manyhead.build import new_model, read_parts

    start = new_model(read_parts(load_recipe(recipe), Observer())).state_dict()
    encoder_names = [name for name in start if name.startswith("encoder.")]
    assert all(torch.equal(before[name], start[name]) for name in encoder_names)
    assert any(not torch.equal(after[name], before[name]) for name in encoder_names)
    assert any(not torch.equal(before[name], start[name]) for name in start if name.startswith("heads."))


def test_a_stage_that_trains_nothing_is_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises((UsageError, RecipeError), match="freeze"):
        run(staged(encoder, {"freeze": ["*"]}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_teachers_say_counts(encoder: Path, tmp_path: Path) -> None:
    teacher = run(staged(encoder, {}), tmp_path / "teacher")
    losses = {}
    for weight in (0.0, 1.0):
        stage = {"distillation": {"teachers": [str(teacher.path)], "weight": weight}}
        run(staged(encoder, stage), tmp_path / f"student-{weight}")
        lines = (tmp_path / f"student-{weight}" / "metrics.jsonl").read_text().splitlines()
        losses[weight] = [json.loads(line)["losses"] for line in lines if '"kind": "step"' in line]
    plain = (tmp_path / "teacher" / "metrics.jsonl").read_text().splitlines()
    assert losses[0.0] == [json.loads(line)["losses"] for line in plain if '"kind": "step"' in line]
    assert losses[1.0] != losses[0.0]


def test_a_teacher_with_other_labels_or_other_tasks_is_refused(encoder: Path, tmp_path: Path) -> None:
    changed = {0: "a", 1: "b", 2: "c", 3: "d", 4: "e"}
    teacher = run(staged(encoder, {}, tasks={"reviews": {"labels": changed}}), tmp_path / "teacher")
    stage = {"distillation": {"teachers": [str(teacher.path), str(tmp_path / "nothing")]}}
    with pytest.raises(RecipeError) as refused:
        run(staged(encoder, stage), tmp_path / "student")
    assert [problem.key for problem in refused.value.problems] == [
        "stages.0.distillation.teachers.0",
        "stages.0.distillation.teachers.1",
    ]
    assert "other labels" in str(refused.value)


def test_another_teacher_cannot_go_on_with_a_run(encoder: Path, tmp_path: Path) -> None:
    teacher = run(staged(encoder, {}), tmp_path / "teacher")
    recipe = staged(encoder, {"distillation": {"teachers": [str(teacher.path)]}})
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "student", StopAt(1))
    weights = teacher.path / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UsageError, match="other teachers"):
        run(recipe, tmp_path / "student", resume=True)


def test_a_stage_is_judged_by_the_tasks_that_it_trains(encoder: Path, tmp_path: Path) -> None:
    done = run(staged(encoder, {"tasks": ["reviews"], "epochs": 4}), tmp_path / "run")
    lines = [json.loads(line) for line in (done.path / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["tasks"]["reviews"]["accuracy"] for line in lines if line["kind"] == "eval"}
    assert scores[done.summary["best"]["step"]] == max(scores.values())
