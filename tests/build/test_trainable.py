"""What stages train: told from the encoder's configuration alone, before any data is read."""

from typing import Any

import pytest
from transformers import BertConfig, PretrainedConfig

from manyhead.build.trainable import StageParameters, stage_parameters, trainable_problems
from manyhead.model import build_model, trainable_names
from manyhead.recipe.load import LoadedRecipe, load_recipe

WORDS, WIDTH, HIDDEN, LAYERS = 50, 16, 32, 2
CONFIG = BertConfig(
    vocab_size=WORDS,
    hidden_size=WIDTH,
    num_hidden_layers=LAYERS,
    num_attention_heads=2,
    intermediate_size=HIDDEN,
    max_position_embeddings=32,
)
LOW_RANK = {"kind": "low_rank", "rank": 2}


def loaded(**changes: Any) -> LoadedRecipe:
    return load_recipe("cs224n", overrides={"encoder.max_tokens": 32, **changes})


def problems(**changes: Any) -> list[str]:
    recipe = loaded(**changes)
    return [str(problem) for problem in trainable_problems(recipe.recipe, recipe.tables, CONFIG)]


def counts(config: PretrainedConfig = CONFIG, **changes: Any) -> StageParameters:
    recipe = loaded(**changes)
    return stage_parameters(recipe.recipe, recipe.tables, config)


def test_a_sound_stage_has_no_problems() -> None:
    assert problems() == []
    assert problems(**{"stages.0.freeze": ["encoder.*"]}) == []
    assert problems(**{"stages.0.freeze": ["encoder.*"], "stages.0.clip_by": "task"}) == []
    assert problems(**{"encoder.experts": LOW_RANK}) == []
    assert problems(**{"stages.0.balancing": "pcgrad"}) == []


def test_a_pattern_that_matches_nothing_gets_the_nearest_name() -> None:
    (line,) = problems(**{"stages.0.freeze": ["encoder.*", "encoder.embeddings.*"]})
    assert line.startswith("stages.0.freeze.1: 'encoder.embeddings.*' matches no parameter; expected a pattern")
    assert "such as encoder.*, heads.*" in line
    assert line.endswith("did you mean 'encoder.model.embeddings.*'?")
    (line,) = problems(**{"stages.0.freeze": ["heads.sst.*"]})
    assert line.endswith("did you mean 'heads.task_sst.*'?")
    (line,) = problems(**{"stages.0.freeze": ["zzzzzz"]})
    assert "did you mean" not in line


@pytest.mark.parametrize(
    "changes",
    [
        {"stages.0.freeze": ["encoder.*", "heads.*"]},
        {"stages.0.freeze": ["[a-z]*"]},
        {"encoder.experts": LOW_RANK, "stages.0.freeze": ["experts.*", "heads.*"]},
        {"encoder.experts": "copies", "stages.0.freeze": ["encoder.*", "heads.*"]},
        {"stages.0.tasks": ["sst"], "stages.0.freeze": ["encoder.*", "heads.task_sst.*"]},
        {"stages.0.pretraining": "mlm", "stages.0.freeze": ["encoder.*"]},
    ],
)
def test_a_stage_in_which_nothing_trains(changes: dict[str, Any]) -> None:
    (line,) = problems(**changes)
    assert line.startswith("stages.0.freeze: nothing is left to train in stage 'multitask'")
    assert line.endswith("remove a pattern")


def test_a_head_without_parameters_on_a_frozen_encoder() -> None:
    cosine = {"tasks.sts.pairing": "siamese", "tasks.sts.head": "cosine", "tasks.sts.loss": "cosine_mse"}
    frozen = {"stages.0.freeze": ["encoder.*"]}
    (line,) = problems(**cosine, **frozen, **{"stages.0.tasks": ["sts"]})
    assert "nothing is left to train in stage 'multitask'" in line
    assert problems(**cosine, **frozen) == []
    assert problems(**cosine, **frozen, **{"stages.0.tasks": ["sts"], "encoder.experts": LOW_RANK}) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder.experts": LOW_RANK},
        {"encoder.experts": "copies"},
        {"stages.0.freeze": ["encoder.*"]},
        {"encoder.experts": "pal_top", "stages.0.freeze": ["encoder.*"]},
    ],
)
def test_surgery_needs_shared_parameters_that_train(changes: dict[str, Any]) -> None:
    if "encoder.experts" in changes and changes["encoder.experts"] == "pal_top":
        changes = {**changes, "encoder.experts": {"kind": "pal_top", "width": 12, "heads": 2}}
    for kind in ("pcgrad", "upgrad", "gradnorm"):
        (line,) = problems(**changes, **{"stages.0.balancing": kind})
        assert line.startswith(f"stages.0.balancing: '{kind}' weighs gradients of parameters that tasks share")
    assert problems(**changes, **{"stages.0.balancing": "gls"}) == []
    thawed = {**LOW_RANK, "freeze": False}
    assert problems(**{"encoder.experts": thawed, "stages.0.balancing": "pcgrad"}) == []


def test_a_head_that_does_not_fit_is_one_of_the_problems() -> None:
    recipe = loaded()
    sts = recipe.recipe.tasks["sts"].model_copy(update={"head": loaded(
        **{"tasks.sts.pairing": "siamese", "tasks.sts.head": "cosine", "tasks.sts.loss": "cosine_mse"}
    ).recipe.tasks["sts"].head})  # fmt: skip
    broken = recipe.recipe.with_changes(tasks={**recipe.recipe.tasks, "sts": sts})
    (problem,) = trainable_problems(broken, recipe.tables, CONFIG)
    assert problem.key == "tasks.sts.head"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"encoder.pooling": "pooler", "encoder.projections": ["dense", "mlp"]},
        {"encoder.experts": LOW_RANK},
        {"encoder.experts": "copies"},
        {"stages.0.freeze": ["encoder.model.embeddings.*"]},
    ],
)
def test_counts_are_those_of_the_model(changes: dict[str, Any]) -> None:
    recipe, found = loaded(**changes), counts(**changes)
    model = build_model(recipe.recipe, recipe.tables, CONFIG, None)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert found["total"] == sum(sizes.values())
    assert found["shared"] + sum(found["per_task"].values()) == found["total"]
    for task, count in found["per_task"].items():
        assert count == sum(size for name, size in sizes.items() if f"task_{task}." in name)
    trained = trainable_names(model, recipe.recipe.stages[0].freeze)
    assert found["trained"] == found["stages"]["multitask"] == sum(sizes[name] for name in trained)


def test_each_stage_counts_what_it_trains() -> None:
    whole = counts()
    head = whole["per_task"]["sst"]
    stages: list[dict[str, Any]] = [
        {"name": "texts", "pretraining": "mlm"},
        {"name": "heads", "freeze": ["encoder.*"]},
        {"name": "one", "tasks": ["sst"], "freeze": ["encoder.*"]},
    ]
    found = counts(stages=stages)
    assert found["stages"] == {
        "texts": whole["shared"],
        "heads": whole["total"] - whole["shared"],
        "one": head,
    }
    assert found["trained"] == found["total"] == whole["total"]
    assert counts(stages=stages[1:])["trained"] == whole["total"] - whole["shared"]


def test_bert_base_has_the_known_number_of_parameters() -> None:
    found = counts(BertConfig(), **{"encoder.pooling": "pooler"})
    assert found["shared"] == 109_482_240
    assert counts(BertConfig(), **{"encoder.pooling": "pooler", "encoder.experts": "copies"})["total"] > 3 * 109_482_240
    low_rank = counts(BertConfig(), **{"encoder.experts": {"kind": "low_rank", "rank": 256}})
    heads = sum(counts(BertConfig())["per_task"].values())
    assert low_rank["trained"] - heads == 84_934_656
