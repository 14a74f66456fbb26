"""Tasks as plain transformers classifiers: `transformers.pipeline`, without manyhead, says what the model says."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from export_makers import exported, family_encoder, saved_model

from manyhead.export.check import Parity, compare
from manyhead.export.source import Written

LINEAR: dict[str, Any] = {"reviews": {"head": "linear"}, "questions": {"head": "linear"}}
GELU: dict[str, Any] = {"reviews": {"head": {"kind": "mlp", "width": 16, "activation": "gelu"}}}
TANH: dict[str, Any] = {"reviews": {"head": {"kind": "mlp", "width": 7, "activation": "tanh"}}}
RELU: dict[str, Any] = {"reviews": {"head": {"kind": "mlp", "width": 9}}}
SCORE: dict[str, Any] = {"sentences": {"head": "linear", "loss": "mse", "pairing": "concat"}}
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
