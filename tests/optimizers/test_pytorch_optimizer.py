"""Optimisers of pytorch_optimizer by name: every one of them works and resumes, or is refused and says why."""

from inspect import signature
from typing import Any

import pytest
import pytorch_optimizer
import torch
from torch import nn

from manyhead.errors import RecipeError, UsageError
from manyhead.optimizers import PytorchOptimizerOptions, resumption
from manyhead.optimizers.groups import Group
from manyhead.optimizers.pytorch_optimizer import build
from manyhead.optimizers.pytorch_optimizer_names import REFUSED, USABLE
from manyhead.recipe.load import load_recipe

TASK = {
    "kind": "classification",
    "text": "text",
    "target": "label",
    "labels": [0, 1],
    "files": {"train": "train.csv", "dev": "dev.csv"},
}

# What those need that do not work with their defaults.
NEEDED = {
    "AdaFactor": {"relative_step": False},
    "ApolloDQN": {"warmup_steps": 0},
    "Ranger21": {"num_iterations": 100, "disable_lr_scheduler": True},
}
ONE_RATE = {"DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptLion", "DAdaptSGD", "Prodigy"}
NO_DECAY = {"AdaShift", "Amos", "FTRL", "Fromage", "Gravity", "MSVAG", "Nero", "SM3", "SRMM"}


def groups(head_lr: float | None = None) -> list[Group]:
    members = [(nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, 2))) for _ in range(2)]
    return [Group(("a", "b"), members[0], 1e-3, 0.0), Group(("c", "d"), members[1], head_lr or 1e-3, 0.0)]


def options(name: str, **keys: Any) -> PytorchOptimizerOptions:
    return PytorchOptimizerOptions.model_validate({"name": name, **keys})


def classes() -> dict[str, type[torch.optim.Optimizer]]:
    found = {name: getattr(pytorch_optimizer, name) for name in dir(pytorch_optimizer)}
    return {
        name: each
        for name, each in found.items()
        if isinstance(each, type) and issubclass(each, torch.optim.Optimizer) and not each.__name__.startswith("_")
    }


def works(name: str, **keys: Any) -> str | None:
    """None, or why the optimiser was refused."""
    head_lr = keys.pop("head_lr", None)
    try:
        optimizer = build(options(name, **keys), groups(head_lr))
    except UsageError as error:
        return str(error)
    assert type(optimizer).__name__ == name
    return None


def recipe_errors(optimizer: Any) -> str:
    recipe = {"manyhead": 1, "name": "one", "tasks": {"one": TASK}, "stages": [{"optimizer": optimizer}]}
    with pytest.raises(RecipeError) as found:
        load_recipe(recipe)
    return str(found.value)


def test_the_lists_name_every_optimizer_of_the_package_once() -> None:
    abstract = {"Optimizer", "BaseOptimizer", "CPUOffloadOptimizer"}
    assert {*USABLE, *REFUSED} == classes().keys() - abstract
    assert len({*USABLE, *REFUSED}) == len(USABLE) + len(REFUSED)
    assert len({name.lower() for name in (*USABLE, *REFUSED)}) == len(USABLE) + len(REFUSED)


def test_each_one_works_and_resumes_or_is_refused() -> None:
    """At two rates. The numbers are measured: a check that refused everything, or nothing, would show."""
    assert (len(USABLE), len(REFUSED)) == (92, 47)
    refused = {name: refusal for name in USABLE if (refusal := works(name, head_lr=1e-2))}
    assert len(refused) == 9
    assert refused.keys() == NEEDED.keys() | ONE_RATE
    assert all("leave out head_lr and layer_decay" in refused[name] for name in ONE_RATE)
    assert "takes no notice of the learning rate" in refused["AdaFactor"]
    assert "takes no notice of the learning rate" in refused["ApolloDQN"]
    assert "needs num_iterations" in refused["Ranger21"]


def test_some_work_with_an_option_or_at_one_rate() -> None:
    assert [works(name, head_lr=1e-2, options=needed) for name, needed in NEEDED.items()] == [None] * len(NEEDED)
    assert [works(name) for name in ONE_RATE] == [None] * len(ONE_RATE)


@pytest.mark.slow
def test_those_that_work_go_on_working(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted before step 1000, where periods of 100, 200 and 500 steps end."""
    monkeypatch.setattr(resumption, "_SAVED_AT", 995)
    monkeypatch.setattr(resumption, "_STEPS", 1005)
    outcomes = {name: works(name, options=NEEDED.get(name, {})) for name in USABLE}
    assert {name: refusal for name, refusal in outcomes.items() if refusal} == {}


def test_decay_is_refused_by_those_that_have_none() -> None:
    assert {name for name in USABLE if "weight_decay" not in signature(classes()[name]).parameters} == NO_DECAY
    for name in NO_DECAY:
        assert f"{name} has no weight decay; leave it out" in (works(name, weight_decay=0.1) or "")


def test_rates_decay_and_options_arrive() -> None:
    optimizer = build(
        options("lion", lr=1e-3, weight_decay=0.2, options={"betas": [0.8, 0.95], "weight_decouple": False}),
        [
            Group(("a",), (nn.Parameter(torch.ones(2, 2)),), 1e-3, 0.2),
            Group(("b",), (nn.Parameter(torch.ones(2)),), 5e-3, 0.0),
        ],
    )
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(1e-3, 0.2), (5e-3, 0.0)]
    assert all(group["betas"] == (0.8, 0.95) and not group["weight_decouple"] for group in optimizer.param_groups)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"options": {"betaz": [0.9, 0.99]}},
            r"Lion has no betaz; expected some of betas, weight_decouple, .*maximize$",
        ),
        ({"options": {"betas": [0.9, 7.0]}}, r"optimizer Lion: ValueError: .*beta2.*change optimizer\.options"),
        ({"options": {"betas": "often"}}, "optimizer Lion: "),
        ({"options": {"foreach": "perhaps", "kwargs": 1}}, "Lion has no kwargs"),
    ],
)
def test_wrong_options_are_told(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(options("Lion", **keys), groups())


def test_mistakes_in_recipes_are_told_before_anything_is_read() -> None:
    unknown = recipe_errors({"kind": "pytorch_optimizer", "name": "Lyon"})
    assert "stages.0.optimizer.name" in unknown
    assert "'Lyon'" in unknown
    assert "did you mean 'Lion'?" in unknown
    assert all(name in unknown for name in USABLE)
    refused = recipe_errors({"kind": "pytorch_optimizer", "name": "sam"})
    assert "stages.0.optimizer.name: 'SAM' cannot be used: it needs the loss" in refused
    reserved = recipe_errors(
        {"kind": "pytorch_optimizer", "name": "Lion", "options": {"lr": 1e-3, "betas": [0.9, 0.9]}}
    )
    assert "stages.0.optimizer.options: lr cannot be given here" in reserved
    assert "optimizer.name: is missing" in recipe_errors({"kind": "pytorch_optimizer"})


def test_names_are_kept_as_the_package_writes_them() -> None:
    assert options("ADAMAX").name == "AdaMax"
    assert options("adanorm").name == "AdaNorm"
