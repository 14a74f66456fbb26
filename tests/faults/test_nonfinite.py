"""NaN and infinity, planted: they stop a run before they reach its weights, or are skipped without a trace."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty import AtVisit, Events, differences, ending, lasting, run, staged, steps_of
from safetensors.torch import load_file

from manyhead.balancing import BALANCING
from manyhead.build import new_model, plan_stages, read_parts
from manyhead.cli.progress import Lines
from manyhead.errors import DivergedError
from manyhead.faults import injected
from manyhead.recipe.load import load_recipe
from manyhead.training.checkpoint import checkpoint_folders, damage
from manyhead.training.observer import Observer
from manyhead.training.step import StepResult, take_step

TASKS = ("reviews", "questions", "sentences")
BAD = {"nan": math.nan, "inf": math.inf}

STAGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "pieces": {"accumulation": 3},
    "pcgrad": {"balancing": "pcgrad"},
    "smart": {"regularisers": [{"kind": "smart", "bregman": 1.0}]},
    "uncertainty and lion": {
        "balancing": "uncertainty",
        "optimizer": {"kind": "pytorch_optimizer", "name": "lion", "lr": 1e-3},
    },
    "triplets": {},
}
TRIPLETS = {"questions": {"pairing": "siamese", "auxiliary": ["cosine_embedding", "cosine_triplet"]}}


def recipe_of(encoder: Path, case: str, **changes: Any) -> dict[str, Any]:
    tasks = TRIPLETS if case == "triplets" else None
    return staged(encoder, {**STAGES[case], "evaluate_every_steps": 2, **changes}, tasks=tasks)


def bad_loss(task: str, value: float) -> Callable[[Mapping[str, torch.Tensor]], Any]:
    return lambda losses: {name: loss * value if name == task else loss for name, loss in losses.items()}


def bad_gradient(value: float) -> Callable[[torch.nn.Module], Any]:
    def spoil(model: torch.nn.Module) -> None:
        [each.grad for each in model.parameters() if each.grad is not None][-1].fill_(value)

    return spoil


def ids_of_step(recipe: Mapping[str, Any], step: int) -> dict[str, list[str]]:
    """The ids of the examples of a step, counted from 1, as the schedule draws them."""
    parts = read_parts(load_recipe(recipe), Observer())
    plan = plan_stages(parts, new_model(parts))[0]
    data = parts.split("train")
    return {
        part.task: [data[part.task].ids[int(row)] for row in part.examples]
        for part in plan.schedule.step(step - 1).parts
    }


@pytest.mark.parametrize(
    ("case", "precision"), [*((case, "fp32") for case in STAGES), ("plain", "bf16"), ("pcgrad", "bf16")]
)
def test_a_bad_loss_ends_the_run_and_the_same_bits_come_after_it(
    encoder: Path, tmp_path: Path, case: str, precision: str
) -> None:
    recipe = recipe_of(encoder, case)
    recipe["precision"] = precision
    whole = run(recipe, tmp_path / "whole")
    pieces = STAGES[case].get("accumulation", 1)
    task = TASKS[list(STAGES).index(case) % 3]
    value = BAD["nan" if precision == "fp32" else "inf"]
    for step in (1, 4) if precision == "fp32" else (3,):
        path = tmp_path / f"run-{step}"
        hook = AtVisit("losses", bad_loss(task, value), visit=pieces * (step - 1) + 1)
        if case == "pcgrad":  # tasks run together, or one after the other
            hook = AtVisit("losses", lambda losses: bad_loss(task, value)(losses) if task in losses else None, step)
        with injected(hook), pytest.raises(DivergedError) as told:
            run(recipe, path)
        assert told.value.exit_code == 3
        check_message(str(told.value), "multitask", step, {task: ids_of_step(recipe, step)[task]})
        check_kept(path, step - 1)
        run(recipe, path, resume=True)
        assert differences(ending(whole.path), ending(path)) == []


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("bad", list(BAD))
def test_a_bad_gradient_ends_the_run_before_the_update(encoder: Path, tmp_path: Path, bad: str, step: int) -> None:
    recipe = recipe_of(encoder, "plain")
    whole = run(recipe, tmp_path / "whole")
    with (
        injected(AtVisit("gradients", bad_gradient(BAD[bad]), visit=step)),
        pytest.raises(DivergedError, match="the gradient of") as told,
    ):
        run(recipe, tmp_path / "run")
    check_message(str(told.value), "multitask", step, ids_of_step(recipe, step))
    check_kept(tmp_path / "run", step - 1)
    run(recipe, tmp_path / "run", resume=True)
    assert differences(ending(whole.path), ending(tmp_path / "run")) == []


def check_message(message: str, stage: str, step: int, ids: Mapping[str, list[str]]) -> None:
    assert f"stage {stage}, step {step}:" in message
    for task, names in ids.items():
        assert f"{task}: {', '.join(names)}" in message
    assert "on_nonfinite: skip" in message


def check_kept(path: Path, step: int) -> None:
    """The newest checkpoint is that of ``step``, whole and finite; there is none before the first step."""
    folders = checkpoint_folders(path / "checkpoints")
    if step == 0:
        assert folders == []
        return
    assert folders[-1].name == f"step-{step:08d}"
    assert damage(folders[-1]) is None
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(folders[-1] / "weights.safetensors").values())
    assert json.loads((path / "state.json").read_text())["status"] == "diverged"


def test_what_is_kept_are_the_weights_of_an_unharmed_run(encoder: Path, tmp_path: Path) -> None:
    recipe = recipe_of(encoder, "plain", checkpoint_every_steps=1, keep_checkpoints=9)
    whole = run(recipe, tmp_path / "whole")
    with injected(AtVisit("losses", bad_loss("reviews", math.nan), visit=4)), pytest.raises(DivergedError):
        run(recipe_of(encoder, "plain", checkpoint_every_steps=6), tmp_path / "run")
    for name in ("weights.safetensors", "optimizer.safetensors"):
        one, other = (path / "checkpoints" / "step-00000003" / name for path in (whole.path, tmp_path / "run"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("where", ["losses", "gradients"])
@pytest.mark.parametrize("balancing", [name for name in BALANCING if name not in ("cagrad", "nash_mtl")])
def test_a_skipped_step_changes_nothing(encoder: Path, balancing: str, where: str) -> None:
    """Weights, optimiser, balancer, regulariser's average and triplet memory, with every balancer."""
    needs = {"weighted": {"weights": {"reviews": 2.0}}, "fls": {"focus": ["questions"]}}
    stage = {
        "balancing": {"kind": balancing, **needs.get(balancing, {})},
        "regularisers": [{"kind": "smart", "bregman": 1.0}],
        "on_nonfinite": "skip",
    }
    parts = read_parts(load_recipe(staged(encoder, stage, tasks=TRIPLETS)), Observer())
    plan = plan_stages(parts, new_model(parts))[0]
    learner, schedule = plan.learner, plan.schedule
    for regulariser in learner.lesson.regularisers:
        regulariser.started(learner.lesson.model)
    assert not take_step(learner, schedule.step(0)).skipped

    before = everything(learner)
    with injected(lambda place, value: _spoilt(place, value, where)):
        result = take_step(learner, schedule.step(1))
    assert isinstance(result, StepResult)
    assert result.skipped
    assert math.isnan(result.grad_norm)
    after = everything(learner)
    assert before.keys() == after.keys()
    assert [name for name in before if not same(before[name], after[name])] == []
    assert not take_step(learner, schedule.step(2)).skipped
    assert any(not same(value, everything(learner)[name]) for name, value in before.items())


def _spoilt(place: str, value: Any, where: str) -> Any:
    if place == where == "losses" and "questions" in value:
        return bad_loss("questions", math.nan)(value)
    if place == where == "gradients":
        bad_gradient(math.nan)(value)
    return value


def everything(learner: Any) -> dict[str, Any]:
    found = {f"model/{name}": tensor.clone() for name, tensor in learner.lesson.model.state_dict().items()}
    found |= {f"extras/{name}": tensor.clone() for name, tensor in learner.extras.state_dict().items()}
    for index, fields in learner.optimizer.state_dict()["state"].items():
        found |= {f"optimizer/{index}/{name}": torch.as_tensor(value).clone() for name, value in fields.items()}
    return found


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def test_skipped_steps_are_counted_and_logged_and_the_run_goes_on(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(encoder, "plain", on_nonfinite="skip")
    loaded = load_recipe(recipe)
    progress = Lines(loaded.recipe)
    with injected(AtVisit("losses", bad_loss("reviews", math.inf), visit=2)):
        done = run(recipe, tmp_path / "run", progress)
    assert done.summary["skipped"] == 1
    assert done.summary["steps"] == 6
    records = steps_of(done.path)
    assert [record.get("skipped", False) for record in records] == [False, True, False, False, False, False]
    assert records[1]["losses"]["reviews"] is None
    assert records[1]["losses"]["questions"] > 0
    assert records[1]["grad_norm"] is None
    assert progress.stage is not None
    assert all(state.loss is not None and math.isfinite(state.loss) for state in progress.stage.tasks.values())
    assert "is skipped" in capsys.readouterr().err
    assert (done.path / "report.html").is_file()


def test_a_skipping_run_goes_on_to_the_same_bits(encoder: Path, tmp_path: Path) -> None:
    """Also with the balancer that remembers, and the count of what was skipped."""
    recipe = recipe_of(encoder, "plain", on_nonfinite="skip", balancing="dwa", epochs=3)
    by_examples = _bad_with_example(5)
    with injected(by_examples):
        whole = run(recipe, tmp_path / "whole")
    assert whole.summary["skipped"] == 3
    for left in (1, 4, 8):
        path = tmp_path / f"run-{left}"
        with injected(_bad_with_example(5, stop_after=left)), pytest.raises(KeyError):
            run(recipe, path)
        with injected(by_examples):
            run(recipe, path, resume=True)
        assert differences(lasting(whole.path), lasting(path)) == []


def _bad_with_example(row: int, stop_after: int = -1) -> Callable[[str, Any], Any]:
    """A loss of reviews is bad where an example is among them; the process fails after some steps."""
    state = {"bad": False, "steps": 0}

    def hook(place: str, value: Any) -> Any:
        if place == "forward":
            state["bad"] = any(part.task == "reviews" and row in part.examples for part in value)
        elif place == "losses" and state["bad"]:
            return bad_loss("reviews", math.nan)(value)
        elif place == "step: logged":
            state["steps"] += 1
            if state["steps"] == stop_after:
                raise KeyError("as if the power went")
        return value

    return hook


def test_twenty_skipped_steps_in_a_row_end_the_run(encoder: Path, tmp_path: Path) -> None:
    recipe = recipe_of(encoder, "plain", on_nonfinite="skip", epochs=20, evaluate_every_steps=7)
    whole = run(recipe, tmp_path / "whole")
    assert whole.summary["skipped"] == 0
    steps = {"count": 0}

    def hook(place: str, value: Any) -> Any:
        if place == "losses":
            steps["count"] += 1
            return bad_loss("sentences", math.nan)(value) if steps["count"] > 3 else value
        return value

    with injected(hook), pytest.raises(DivergedError, match="20 steps in a row") as told:
        run(recipe, tmp_path / "run", Events())
    assert told.value.exit_code == 3
    assert len(steps_of(tmp_path / "run")) == 23
    newest = checkpoint_folders(tmp_path / "run" / "checkpoints")[-1]
    assert json.loads((newest / "state.json").read_text())["progress"]["skipped"] == 20
    assert all(bool(each.isfinite().all()) for each in load_file(newest / "weights.safetensors").values())
