"""Methods that contradict each other are refused before anything is read."""

from typing import Any

import pytest

from manyhead.balancing import BALANCING, BalancingOptions
from manyhead.errors import RecipeError
from manyhead.recipe.load import load_recipe
from manyhead.recipe.schema import Entry
from manyhead.recipe.tables import TABLES
from manyhead.schedules import SCHEDULES

SLOTS = {
    "pooling": ("encoder.pooling", False),
    "projections": ("encoder.projections", True),
    "experts": ("encoder.experts", False),
    "heads": ("tasks.sst.head", False),
    "objectives": ("tasks.sst.loss", False),
    "pretraining": ("stages.0.pretraining", False),
    "regularisers": ("stages.0.regularisers", True),
    "balancing": ("stages.0.balancing", False),
    "schedules": ("stages.0.schedule", False),
    "optimizers": ("stages.0.optimizer", False),
    "rates": ("stages.0.rate", False),
    "trackers": ("trackers", True),
}
STAGE = {"tasks": ["sst"], "epochs": 1}


def refused(**changes: Any) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        load_recipe("cs224n", overrides=changes)
    return str(raised.value).splitlines()


def stages(*changes: dict[str, Any]) -> dict[str, Any]:
    return {"stages": [{"name": f"s{place}", **each} for place, each in enumerate(changes)]}


def options(kind: str, entry: Entry) -> dict[str, Any]:
    """A member with the options that have no default."""
    needed = {"weights": {"sst": 2.0}, "focus": ["para"]}
    return {"kind": kind} | {
        name: needed[name] for name, field in entry.options.model_fields.items() if field.is_required()
    }


@pytest.mark.parametrize("family", TABLES)
def test_an_unknown_method_gets_the_list_of_those_that_exist(family: str) -> None:
    key, listed = SLOTS[family]
    for given in ("zzz", {"kind": "zzz"}):
        lines = refused(**{key: [given] if listed else given})
        names = ", ".join(sorted(TABLES[family]))
        assert any(f"unknown kind 'zzz'; expected one of {names}" in line for line in lines), lines
        assert len(lines) == 1


def test_auxiliary_losses_are_listed_too() -> None:
    (line,) = refused(**{"tasks.sst.auxiliary": ["mnrr"]})
    assert "tasks.sst.auxiliary.0: unknown kind 'mnrr'; expected one of bce" in line
    assert "did you mean 'mnr'" in line


@pytest.mark.parametrize("kind", BALANCING)
@pytest.mark.parametrize("schedule", [*SCHEDULES, "round_robin by batch"])
def test_balancers_of_several_tasks_want_steps_of_several(kind: str, schedule: str) -> None:
    balancing = options(kind, BALANCING[kind])
    schedules: dict[str, Any] = {"round_robin by batch": {"kind": "round_robin", "update": "batch"}}
    changes = {"stages.0.balancing": balancing, "stages.0.schedule": schedules.get(schedule, schedule)}
    wants_several = kind not in ("sum", "weighted", "uncertainty", "imtl_l")
    one = schedule in ("sequential", "sampled", "shuffled", "round_robin by batch")
    if wants_several and one:
        (line,) = refused(**changes)
        assert f"'{kind}' needs several tasks in a step" in line
    else:
        load_recipe("cs224n", overrides=changes)
    lines = refused(**changes, **{"stages.0.tasks": ["para"]}) if wants_several else []
    assert all("this stage trains para alone" in line for line in lines)


def test_all_balancers_say_what_they_need() -> None:
    assert all(issubclass(entry.options, BalancingOptions) for entry in BALANCING.values())


def test_two_equal_passes_teach_nothing() -> None:
    no_dropout = {"encoder.dropout": 0.0}
    for changes in (
        {**no_dropout, "stages.0.pretraining": "simcse"},
        {**no_dropout, "stages.0.regularisers": ["r_drop"], "tasks.*.head.dropout": 0.0},
        {**no_dropout, "stages.0.regularisers": [{"kind": "r_drop", "tasks": ["sst"]}], "tasks.sst.head.dropout": 0.0},
    ):
        assert "without dropout both passes" in refused(**changes)[0]
    for changes in (
        {**no_dropout, "encoder.attention_dropout": 0.1, "stages.0.pretraining": "simcse"},
        {**no_dropout, "encoder.projections": [{"kind": "mlp", "dropout": 0.1}], "stages.0.pretraining": "simcse"},
        {**no_dropout, "stages.0.pretraining": "simcse_pairs"},
        {**no_dropout, "stages.0.regularisers": ["r_drop"]},
    ):
        load_recipe("cs224n", overrides=changes)


def test_pairs_of_like_meaning_need_a_range_or_two_classes() -> None:
    pretraining = {"stages.0.pretraining": "simcse_pairs"}
    (line,) = refused(**pretraining, **{"tasks.sts.range": None})
    assert "tasks.sts.range: is missing, and simcse_pairs needs it" in line
    load_recipe("cs224n", overrides={**pretraining, "tasks.sts.range": None, "stages.0.tasks": ["para"]})
    labels = {"tasks.para.labels": ["a", "b", "c"], "tasks.para.loss": "cross_entropy", "stages.0.tasks": ["para"]}
    assert "trains no task with like pairs" in refused(**pretraining, **labels)[0]


@pytest.mark.parametrize("kind", ["pcgrad", "upgrad", "gradnorm", "gls", "uncertainty"])
def test_pretraining_has_no_use_for_balanced_tasks(kind: str) -> None:
    (line,) = refused(**{"stages.0.pretraining": "mlm", "stages.0.balancing": kind})
    assert f"'{kind}' balances the tasks, and 'mlm' learns no task; expected sum or weighted; write sum" in line
    weighted = {"kind": "weighted", "weights": {"sst": 2.0}}
    load_recipe("cs224n", overrides={"stages.0.pretraining": "mlm", "stages.0.balancing": weighted})


def test_masked_words_are_guessed_by_one_encoder() -> None:
    (line,) = refused(**{"stages.0.pretraining": "mlm", "encoder.experts": "copies"})
    assert "stages.0.pretraining: 'mlm' needs one encoder for all tasks" in line
    load_recipe("cs224n", overrides={"stages.0.pretraining": "simcse", "encoder.experts": "copies"})


def student_of(teacher: str) -> dict[str, Any]:
    return {"distillation": {"teachers": [teacher]}}


def test_a_stage_that_pretrains_teaches_what_was_learned_before() -> None:
    given = stages({"tasks": ["sts"]}, {"pretraining": "mlm"}, {"tasks": ["para"], "pretraining": "mlm"})
    recipe = load_recipe("cs224n", overrides=given).recipe
    assert [recipe.learned_tasks(stage) for stage in recipe.stages] == [["sts"]] * 3


def test_two_passes_of_a_piece_have_no_piece_before() -> None:
    siamese = {"tasks.para.pairing": "siamese", "tasks.para.auxiliary": ["cosine_triplet"]}
    (line,) = refused(**siamese, **{"stages.0.regularisers": ["r_drop"]})
    assert "stages.0.regularisers.0: 'para' has cosine_triplet, which needs the piece before" in line
    load_recipe("cs224n", overrides={**siamese, "stages.0.regularisers": [{"kind": "r_drop", "tasks": ["sst"]}]})


def test_teachers_are_earlier_stages_that_know_a_task() -> None:
    student = {"distillation": {"teachers": ["s0"]}}
    load_recipe("cs224n", overrides=stages(STAGE, {**student, "start": "encoder"}))
    load_recipe("cs224n", overrides=stages(STAGE, {"tasks": ["sts"]}, {"distillation": {"teachers": ["s0", "s1"]}}))
    load_recipe("cs224n", overrides=stages({"distillation": {"teachers": ["./run", "me/model", "/a/run"]}}))
    later = refused(**stages(STAGE, {"distillation": {"teachers": ["s2"]}}, STAGE))
    assert "stages.1.distillation.teachers.0: 's2' is a later stage; expected an earlier stage" in later[0]
    for first in (STAGE, {**STAGE, "pretraining": "mlm", "tasks": None}):
        (line,) = refused(**stages(first, {**student, "tasks": ["sts"]}))
        assert "the stage 's0' has learned none of sts" in line
    lines = refused(**stages({"tasks": ["sts"]}, {"tasks": ["para"]}, {"tasks": ["sts"], **student_of("s1")}))
    assert "the stage 's1' has learned none of sts" in lines[0]
    pretrained_later = ({"tasks": ["sts"]}, {"pretraining": "mlm"}, {"distillation": {"teachers": ["s1"]}})
    load_recipe("cs224n", overrides=stages(*pretrained_later))
    fresh = ({"tasks": ["sts"]}, {"pretraining": "mlm", "start": "encoder"}, {"distillation": {"teachers": ["s1"]}})
    assert "the stage 's1' has learned none of" in refused(**stages(*fresh))[0]


def test_the_first_stage_may_say_that_it_starts_from_the_encoder() -> None:
    load_recipe("cs224n", overrides={"stages.0.start": "encoder"})


def test_clipping_by_task_goes_with_any_schedule() -> None:
    load_recipe("cs224n", overrides={"stages.0.clip_by": "task", "stages.0.schedule": "sequential"})
    load_recipe("cs224n", overrides={"stages.0.clip_always": True})


def test_overall_is_of_the_tasks_that_a_stage_trains() -> None:
    changes = {"tasks.sts.metric": "mse"}
    (line,) = refused(**changes)
    assert "stages.0.select_by: 'overall' is no score where a task's metric is mse" in line
    load_recipe("cs224n", overrides={**changes, "stages.0.tasks": ["sst"]})
    assert "which has no bounds" in refused(**changes, **{"stages.0.tasks": ["sts"]})[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks.sst.head": {"kind": "related", "to": "ssst"}}, "tasks.sst.head.to: there is no task 'ssst'"),
        ({"tasks.sst.head": {"kind": "related", "to": "sts"}}, "tasks.sst.head.to: 'sts' has no classes"),
        ({"tasks.sst.head": {"kind": "related", "to": "sst"}}, "'sst' has a related head itself"),
        (
            {"tasks.sst.head": {"kind": "related", "to": "para"}, "tasks.para.pairing": "siamese"},
            "'para' reads other vectors: 2 an example; expected a task with 1",
        ),
    ],
)
def test_a_related_head_wants_a_task_whose_classes_it_can_read(changes: dict[str, Any], message: str) -> None:
    assert any(message in line for line in refused(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages.0.clip_by": "task"}, "stages.0.clip_by: 'mlm' learns no task whose gradient could be clipped"),
        ({"stages.0.select_by": "sst.accuracy"}, "stages.0.select_by: dev is not scored while 'mlm' learns"),
    ],
)
def test_what_is_about_tasks_has_no_place_in_pretraining(changes: dict[str, Any], message: str) -> None:
    lines = refused(**{"stages.0.pretraining": "mlm", **changes})
    assert any(message in line for line in lines), lines


def test_r_drop_wants_dropout_for_each_of_its_tasks() -> None:
    changes = {"encoder.dropout": 0.0, "tasks.sst.head.dropout": 0.0, "stages.0.regularisers": ["r_drop"]}
    (line,) = refused(**changes)
    assert "both passes of a text of sst are the same" in line


def test_a_regulariser_of_no_task_is_refused() -> None:
    (line,) = refused(**{"stages.0.regularisers": [{"kind": "smart", "tasks": []}]})
    assert "stages.0.regularisers.0.tasks" in line


@pytest.mark.parametrize("kind", ["low_rank", "pal_parallel"])
def test_experts_in_layers_that_are_not_used_are_refused(kind: str) -> None:
    (line,) = refused(**{"encoder.layer": 0, "encoder.experts": kind})
    assert "layer 0 lies below them" in line
