"""Tasks as plain transformers classifiers: `transformers.pipeline`, without manyhead, says what the model says."""

from pathlib import Path
from typing import Any

import pytest
from export_makers import exported, family_encoder, saved_model

POOLER: dict[str, Any] = {"pooling": "pooler"}
LINEAR: dict[str, Any] = {"reviews": {"head": "linear"}, "questions": {"head": "linear"}}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family_encoder(tmp_path_factory.mktemp("bert") / "encoder", "bert")


def test_a_pooler_and_linear_heads_are_berts_own_class(bert: Path, tmp_path: Path) -> None:
    model = saved_model(
        tmp_path / "model",
        bert,
        encoder_options=POOLER,
        tasks={**LINEAR, "questions": {"head": "linear", "loss": {"kind": "bce", "threshold": "fitted"}}},
        temperatures={"reviews": 1.7, "questions": 0.6},
        thresholds={"questions": 0.4},
    )
    found = exported(model, "transformers", tmp_path / "out")
    assert [each.name for each in found.parity] == ["reviews", "questions"]
    assert list(found.export.left_out) == ["sentences"]
