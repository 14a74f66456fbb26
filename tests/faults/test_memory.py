"""Out of memory: a step is taken in smaller pieces and stays the same step, or the run says why it cannot be."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty import DROPOUT_OFF, Events, differences, ending, run, staged, steps_of
from safetensors.torch import load_file

from manyhead.errors import UsageError
from manyhead.faults import injected
from manyhead.optimizers.adabelief import AdaBelief
from manyhead.training.checkpoint import checkpoint_folders, damage

FITS = 9


class Memory:
    """A hook: at most ``fits`` examples run at once from the step number ``begins`` on, all tasks together."""

    def __init__(self, fits: int = FITS, *, begins: int = 1, fails_at: int = -1) -> None:
        self.fits, self.begins, self.fails_at = fits, begins, fails_at
        self.steps = 1
        self.refused = 0

    def __call__(self, place: str, value: Any) -> Any:
        if place == "forward" and self.steps >= self.begins and sum(len(part.examples) for part in value) > self.fits:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        if place == "step: logged":
            self.steps += 1
            if self.steps == self.fails_at:
                raise KeyError("as if the power went")
        return value


STAGES: dict[str, dict[str, Any]] = {
    "sum": {},
    "pcgrad": {"balancing": "pcgrad"},
    "gls": {"balancing": "gls"},
    "gls of experts alone": {"balancing": "gls"},
    "dwa": {"balancing": "dwa"},
    "clip by task": {"clip_by": "task", "clip_norm": 0.5},
    "uneven": {"batch_size": {"reviews": 7, "questions": 8, "sentences": 5}},
    "pieces already": {"accumulation": 2},
    "bregman": {"regularisers": [{"kind": "smart", "weight": 0.0, "bregman": 1.0}]},
}


@pytest.mark.parametrize("case", list(STAGES))
def test_a_step_in_pieces_is_the_same_step(encoder: Path, tmp_path: Path, case: str) -> None:
    """With dropout off: as many pieces by the recipe give the same bits, the unsplit step the same but for rounding."""
    stage = {**STAGES[case], "evaluate_every_steps": 2}
    keys = {"experts": {"kind": "low_rank", "rank": 4}} if "experts" in case else {}  # nothing shared trains
    recipe = staged(encoder, stage, **keys)
    unsplit = run(recipe, tmp_path / "unsplit", **DROPOUT_OFF)
    events, memory = Events(), Memory()
    with injected(memory):
        small = run(recipe, tmp_path / "small", events, **DROPOUT_OFF)
    assert memory.refused > 0
    pieces = steps_of(small.path)[0]["pieces"]
    assert pieces == (2 if "experts" in case else 4)  # without shared parameters tasks run one by one
    assert {record["pieces"] for record in steps_of(small.path)} == {pieces}
    assert f"out of memory at step 1: steps are cut into {pieces} pieces" in events
    same = run(staged(encoder, {**stage, "accumulation": pieces}, **keys), tmp_path / "same", **DROPOUT_OFF)
    assert weights_of(small.path).keys() == weights_of(same.path).keys()
    for name, tensor in weights_of(same.path).items():
        assert torch.equal(tensor, weights_of(small.path)[name]), name
    for one, other in zip(steps_of(unsplit.path), steps_of(small.path), strict=True):
        assert one["examples"] == other["examples"]
        assert one["lr"] == other["lr"]
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-5)


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint_folders(path / "checkpoints")[-1] / "weights.safetensors")


@pytest.mark.parametrize("case", ["sum", "gls", "pcgrad"])
def test_the_first_update_is_that_of_the_unsplit_step(encoder: Path, tmp_path: Path, case: str) -> None:
    """By an optimiser that is linear in the gradient, so that rounding stays rounding."""
    stage = {**STAGES[case], "max_steps": 1, "optimizer": {"kind": "sgd", "lr": 1e-2}}
    run(staged(encoder, stage), tmp_path / "unsplit", **DROPOUT_OFF)
    with injected(Memory()):
        run(staged(encoder, stage), tmp_path / "small", **DROPOUT_OFF)
    for name, tensor in weights_of(tmp_path / "unsplit").items():
        torch.testing.assert_close(weights_of(tmp_path / "small")[name], tensor, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("case", ["sum", "pcgrad"])
def test_pieces_are_kept_and_used_by_what_goes_on(encoder: Path, tmp_path: Path, case: str) -> None:
    """Memory is short from the third step on; dropout is on. What goes on meets enough of it again."""
    recipe = staged(encoder, {**STAGES[case], "evaluate_every_steps": 2, "checkpoint_every_steps": 1})
    with injected(Memory(begins=3)):
        whole = run(recipe, tmp_path / "whole")
    assert [record.get("pieces", 1) for record in steps_of(whole.path)] == [1, 1, 4, 4, 4, 4]
    with injected(Memory(begins=3, fails_at=5)), pytest.raises(KeyError):
        run(recipe, tmp_path / "run")
    newest = checkpoint_folders(tmp_path / "run" / "checkpoints")[-1]
    assert json.loads((newest / "state.json").read_text())["progress"]["pieces"] == 4
    run(recipe, tmp_path / "run", resume=True)
    assert differences(ending(whole.path), ending(tmp_path / "run")) == []


def test_pieces_end_with_the_stage(encoder: Path, tmp_path: Path) -> None:
    recipe = staged(encoder, {"name": "a", "epochs": 1}, {"name": "b", "epochs": 1, "tasks": ["reviews"]})
    with injected(Memory()):
        done = run(recipe, tmp_path / "run")
    assert [record.get("pieces") for record in steps_of(done.path)] == [4, 4, 4, None, None, None]


SIAMESE = {"pairing": "siamese", "head": "cosine"}
IN_BATCH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mnr": ({}, {"questions": {**SIAMESE, "loss": "mnr"}}),
    "triplets": ({}, {"questions": {"pairing": "siamese", "auxiliary": ["cosine_triplet"]}}),
    "simcse": ({"pretraining": "simcse"}, {}),
    "simcse_pairs": ({"pretraining": "simcse_pairs", "tasks": ["questions", "sentences"]}, {}),
    "mlm": ({"pretraining": "mlm"}, {}),
}


@pytest.mark.parametrize("case", list(IN_BATCH))
def test_losses_of_a_whole_batch_stop_with_advice(encoder: Path, tmp_path: Path, case: str) -> None:
    stage, tasks = IN_BATCH[case]
    stages = ({**stage, "name": "first"}, {"name": "last"}) if "pretraining" in stage else (stage,)
    recipe = staged(encoder, *({**each, "evaluate_every_steps": 2} for each in stages), tasks=tasks)
    whole = run(recipe, tmp_path / "whole")
    with injected(Memory(begins=4)), pytest.raises(UsageError, match=r"step 4: out of memory.*batch_size") as told:
        run(recipe, tmp_path / "run")
    assert told.value.exit_code == 2
    newest = checkpoint_folders(tmp_path / "run" / "checkpoints")[-1]
    assert (newest.name, damage(newest)) == ("step-00000003", None)
    run(recipe, tmp_path / "run", resume=True)
    assert differences(ending(whole.path), ending(tmp_path / "run")) == []


def test_one_example_at_a_time_that_does_not_fit_is_told(encoder: Path, tmp_path: Path) -> None:
    memory = Memory(fits=0)
    with injected(memory), pytest.raises(UsageError, match=r"one example at a time.*max_tokens"):
        run(staged(encoder, {}), tmp_path / "run")
    assert memory.refused == 4  # 1, 2, 4 and 8 pieces


@pytest.mark.parametrize("case", ["sum", "triplets"])
def test_what_a_failed_try_left_does_not_count(encoder: Path, tmp_path: Path, case: str) -> None:
    """Memory ends in the second of two pieces: gradients, triplet memory and draws are those of the retry alone."""
    tasks = IN_BATCH["triplets"][1] if case == "triplets" else None
    recipe = staged(encoder, {"accumulation": 2, "regularisers": [{"kind": "smart", "bregman": 1.0}]}, tasks=tasks)
    visits: list[int] = []

    def second_piece(place: str, value: Any) -> Any:
        if place == "losses":
            visits.append(1)
            if len(visits) == 6:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return value

    if case == "triplets":
        whole = run(recipe, tmp_path / "whole")
        with injected(second_piece), pytest.raises(UsageError, match="step 3: out of memory"):
            run(recipe, tmp_path / "run")
        run(recipe, tmp_path / "run", resume=True)
        assert differences(ending(whole.path), ending(tmp_path / "run")) == []
        return
    with injected(second_piece):
        small = run(recipe, tmp_path / "run", **DROPOUT_OFF)
    assert [record.get("pieces", 2) for record in steps_of(small.path)] == [2, 2, 4, 4, 4, 4]
    whole = run(recipe, tmp_path / "whole", **DROPOUT_OFF)
    for one, other in zip(steps_of(whole.path), steps_of(small.path), strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-4)


def test_an_update_that_does_not_fit_is_told_and_never_saved_half_done(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The optimiser may have changed some of the weights by then."""
    recipe = staged(encoder, {"optimizer": {"kind": "adabelief", "lr": 1e-3}, "checkpoint_every_steps": 2})
    whole = run(recipe, tmp_path / "whole")
    calls: list[int] = []
    original = AdaBelief.step

    def step(self: AdaBelief, *args: Any, **keys: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            with torch.no_grad():
                self.param_groups[0]["params"][0].add_(1.0)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, *args, **keys)

    with monkeypatch.context() as patched:
        patched.setattr(AdaBelief, "step", step)
        with pytest.raises(UsageError, match=r"step 4: the optimiser's state does not fit"):
            run(recipe, tmp_path / "run")
    newest = checkpoint_folders(tmp_path / "run" / "checkpoints")[-1]
    expected = weights_before_step_four(encoder, tmp_path, recipe)
    found = load_file(newest / "weights.safetensors")
    step_number = json.loads((newest / "state.json").read_text())["step"]
    assert step_number in expected
    assert all(torch.equal(found[name], tensor) for name, tensor in expected[step_number].items())
    run(recipe, tmp_path / "run", resume=True)
    assert differences(ending(whole.path), ending(tmp_path / "run")) == []


def weights_before_step_four(
    encoder: Path, tmp_path: Path, recipe: Mapping[str, Any]
) -> dict[int, dict[str, torch.Tensor]]:
    stage = {**recipe["stages"][0], "checkpoint_every_steps": 1, "keep_checkpoints": 9}
    path = run({**recipe, "stages": [stage]}, tmp_path / "each").path
    return {step: load_file(path / f"checkpoints/step-{step:08d}/weights.safetensors") for step in (2, 3)}


def test_an_evaluation_that_does_not_fit_goes_on_in_smaller_batches(encoder: Path, tmp_path: Path) -> None:
    recipe = staged(encoder, {"epochs": 1})
    whole = run(recipe, tmp_path / "whole")

    def small(place: str, value: Any) -> Any:
        if place == "evaluation: forward" and sum(len(part.examples) for part in value) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return value

    with injected(small):
        small_run = run(recipe, tmp_path / "run")
    assert all(torch.equal(tensor, weights_of(small_run.path)[name]) for name, tensor in weights_of(whole.path).items())
    for task, scores in whole.summary["dev"]["tasks"].items():
        assert small_run.summary["dev"]["tasks"][task] == pytest.approx(scores, abs=1e-5)
