"""Tasks as plain transformers classifiers: `transformers.pipeline`, without manyhead, says what the model says."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from export_makers import exported, family_encoder, saved_model

from manyhead.errors import CheckpointError, UsageError
from manyhead.export.check import Parity, compare, failures
from manyhead.export.source import Written

LINEAR: dict[str, Any] = {"reviews": {"head": "linear"}, "questions": {"head": "linear"}}
GELU: dict[str, Any] = {"reviews": {"head": {"kind": "mlp", "width": 16, "activation": "gelu"}}}
TANH: dict[str, Any] = {"reviews": {"head": {"kind": "mlp", "width": 7, "activation": "tanh"}}}
RELU: dict[str, Any] = {"reviews": {"head": {"kind": "mlp", "width": 9}}}
SCORE: dict[str, Any] = {"sentences": {"head": "linear", "loss": "mse", "pairing": "concat"}}
SCORES: dict[str, Any] = {"sentences": {"head": "linear", "loss": "score_cross_entropy", "pairing": "concat"}}
WIDE: dict[str, Any] = {"reviews": {"head": {"kind": "mlp", "width": 17, "activation": "tanh"}}}
PAL = {"kind": "pal_top", "width": 4, "heads": 2}
LOW_RANK = {"kind": "low_rank", "rank": 3, "alpha": 6.0}

# Encoder, the encoder's options, tasks' options, and the class that each of some tasks becomes.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, str]]] = {
    "pooler": ("bert", {"pooling": "pooler"}, LINEAR | SCORE, dict.fromkeys(("questions", "sentences"), "Bert")),
    "first token": ("bert", {"pooling": "cls"}, LINEAR, dict.fromkeys(("reviews", "questions"), "Electra")),
    "tanh mlp": ("bert", {"pooling": "cls"}, TANH, {"reviews": "Bert"}),
    "gelu mlp": ("bert", {"pooling": "cls"}, GELU, {"reviews": "Electra"}),
    "projection": ("bert", {"pooling": "cls", "projections": ["dense"]}, LINEAR, {"reviews": "Bert"}),
    "no segments": ("bert", {"pooling": "pooler", "segment_ids": False}, LINEAR, {"questions": "Bert"}),
    "first layer": ("bert", {"pooling": "pooler", "layer": 1}, LINEAR, {"reviews": "Bert"}),
    "low rank": ("bert", {"pooling": "pooler", "experts": LOW_RANK}, LINEAR, {"reviews": "Bert", "questions": "Bert"}),
    "copies": ("bert", {"pooling": "pooler", "experts": "copies"}, LINEAR, {"reviews": "Bert", "questions": "Bert"}),
    "roberta": ("roberta", {"pooling": "pooler"}, LINEAR, {"reviews": "Roberta", "questions": "Roberta"}),
    "roberta first token": ("roberta", {"pooling": "cls"}, LINEAR, {"reviews": "Electra", "questions": "Electra"}),
    "electra pooler": ("electra", {"pooling": "pooler"}, LINEAR, {"questions": "Bert"}),
    "electra": ("electra", {"pooling": "cls"}, GELU, {"reviews": "Electra"}),
    "electra narrow": ("electra-narrow", {"pooling": "cls"}, LINEAR, {"questions": "Electra"}),
    "distilbert": ("distilbert", {"pooling": "cls"}, RELU, {"reviews": "DistilBert"}),
    "distilbert first token": ("distilbert", {"pooling": "cls"}, LINEAR, {"reviews": "DistilBert"}),
    "albert": ("albert", {"pooling": "pooler"}, LINEAR, {"reviews": "Albert", "questions": "Albert"}),
    "xlm-roberta": ("xlm-roberta", {"pooling": "cls"}, TANH, {"reviews": "XLMRoberta"}),
    "camembert": ("camembert", {"pooling": "pooler", "layer": -2}, LINEAR, {"questions": "Camembert"}),
}
BCE = {"head": "linear", "loss": {"kind": "bce", "threshold": "fitted"}}
QUICK = ("pooler", "first token", "roberta", "electra")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("encoders")
    return {
        family: family_encoder(base / family, family) for family in dict.fromkeys(each[0] for each in CASES.values())
    }


def write_cases(base: Path, encoders: dict[str, Path], names: Sequence[str]) -> list[Written]:
    """Exports some cases without comparing them, so that one process reads them all."""
    found: list[Written] = []
    for name in names:
        family, options, tasks, classes = CASES[name]
        model = saved_model(
            base / f"{name} model",
            encoders[family],
            encoder_options=options,
            tasks=tasks | ({"questions": BCE} if name == "pooler" else {}),
            temperatures={"reviews": 1.7, "questions": 0.6},
            thresholds={"questions": 0.4} if name == "pooler" else {},
        )
        done = exported(model, "transformers", base / name, *classes, check=False)
        for task, wanted in classes.items():
            config = json.loads((base / name / task / "config.json").read_text())
            assert config["architectures"] == [f"{wanted}ForSequenceClassification"], (name, task)
        found += [
            replace(each, name=f"{name}: {each.name}", folder=f"{name}/{each.folder}") for each in done.export.written
        ]
    return found


def assert_the_same(parities: Sequence[Parity]) -> None:
    assert [each.line() for each in parities if not each.ok] == []
    assert all(each.same_labels in (None, each.texts) for each in parities)
    assert all(each.texts >= 8 for each in parities)


def test_the_pipeline_says_what_the_model_says(encoders: dict[str, Path], tmp_path: Path) -> None:
    assert_the_same(compare(tmp_path, write_cases(tmp_path, encoders, QUICK)))


@pytest.mark.slow
def test_the_pipeline_says_what_the_model_says_of_other_parts(encoders: dict[str, Path], tmp_path: Path) -> None:
    assert_the_same(compare(tmp_path, write_cases(tmp_path, encoders, [name for name in CASES if name not in QUICK])))


@pytest.mark.slow
def test_an_export_that_is_off_is_seen(encoders: dict[str, Path], tmp_path: Path) -> None:
    (one,) = write_cases(tmp_path, encoders, ["tanh mlp"])
    good, bad = compare(tmp_path, [one, replace(one, expected=one.expected[:, ::-1])])
    assert good.ok
    assert not bad.ok
    assert bad.same_labels is not None
    assert bad.same_labels < bad.texts
    assert failures([good, bad]) == [f"{bad.line()}; expected at most 1e-05"]
    with pytest.raises(CheckpointError, match=r"cannot be read back \(sequence_classification.py\)"):
        compare(tmp_path, [replace(one, folder="elsewhere")])


@pytest.mark.parametrize(
    ("family", "options", "tasks", "task", "problem"),
    [
        ("bert", {"pooling": "mean"}, LINEAR, "reviews", r"encoder\.pooling: mean: "),
        ("bert", {"pooling": "attention"}, LINEAR, "questions", r"encoder\.pooling: attention: "),
        ("bert", {"pooling": "pooler"}, {}, "questions", r"tasks\.questions\.head: hidden: its LayerNorm"),
        ("bert", {"pooling": "pooler"}, GELU, "reviews", r"tasks\.reviews\.head: mlp: .*would be a second"),
        ("bert", {"pooling": "cls", "projections": ["mlp"]}, GELU, "reviews", r"head: mlp: .*would be a second"),
        ("bert", {"pooling": "pooler", "projections": ["mlp"]}, LINEAR, "reviews", r"projections: mlp: .*second"),
        ("bert", {"pooling": "cls"}, RELU, "reviews", r"no plain class for bert has a hidden layer with relu"),
        ("bert", {"pooling": "cls"}, WIDE, "reviews", r"it takes 17 hidden units.* have 16"),
        (
            "bert",
            {"pooling": "pooler"},
            {},
            "sentences",
            r"tasks\.sentences\.pairing: siamese.*--to sentence-",
        ),
        ("bert", {"pooling": "pooler"}, SCORES, "sentences", r"tasks\.sentences\.loss: score_cross_entropy: "),
        ("bert", {"pooling": "pooler", "sandwich_norm": True}, LINEAR, "reviews", r"encoder\.sandwich_norm: true"),
        ("bert", {"pooling": "pooler", "experts": PAL}, LINEAR, "reviews", r"encoder\.experts: pal_top"),
        ("bert", {"pooling": "pooler", "layer": 0}, LINEAR, "reviews", r"encoder\.layer: 0"),
        ("electra-narrow", {"pooling": "pooler"}, LINEAR, "reviews", r"no plain class for electra has .*tanh"),
        (
            "albert",
            {"pooling": "cls"},
            LINEAR,
            "reviews",
            r"no plain class for albert has a head without",
        ),
    ],
)
def test_a_part_without_counterpart_is_named(
    encoders: dict[str, Path],
    tmp_path: Path,
    family: str,
    options: dict[str, Any],
    tasks: dict[str, Any],
    task: str,
    problem: str,
) -> None:
    model = saved_model(tmp_path / "model", encoders[family], encoder_options=options, tasks=tasks)
    with pytest.raises(UsageError, match=rf"{task}: not exported: .*{problem}.*--to onnx"):
        exported(model, "transformers", tmp_path / "out", task)
    assert not (tmp_path / "out").exists()


def test_tasks_that_were_not_named_are_left_out(encoders: dict[str, Path], tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model", encoders["bert"], encoder_options={"pooling": "pooler"})
    found = exported(model, "transformers", tmp_path / "out", check=False)
    assert [each.name for each in found.export.written] == ["reviews"]
    assert list(found.export.left_out) == ["questions", "sentences"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["reviews"]
    with pytest.raises(UsageError, match=r"out exists; expected a new folder"):
        exported(model, "transformers", tmp_path / "out")
