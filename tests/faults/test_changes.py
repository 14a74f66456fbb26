"""What changed since a run began is refused with the difference, or gone on with where it is allowed by name."""

import json
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from faulty import AtVisit, Events, ending, run, send, steps_of
from safetensors.torch import load_file

from manyhead.errors import StoppedError, UsageError
from manyhead.faults import injected
from manyhead.training.run_folder import RunFolder
from stopping import StopAt
from tiny import SAMPLE, tiny_encoder, tiny_recipe

Recipe = dict[str, Any]


@pytest.fixture
def started(tmp_path: Path) -> tuple[Recipe, Path]:
    """A recipe with data, an encoder and a teacher of its own, and a run of it that was stopped after step 4."""
    data = shutil.copytree(SAMPLE, tmp_path / "data")
    encoder = tiny_encoder(tmp_path / "encoder")
    teacher = run({**tiny_recipe(encoder, max_steps=1), "data_dir": str(data)}, tmp_path / "teacher")
    recipe = tiny_recipe(
        encoder, epochs=3, evaluate_every_steps=2, distillation={"teachers": [str(teacher.path)]}, clip_norm=0.5
    )
    recipe["data_dir"] = str(data)
    with pytest.raises(StoppedError):
        run(recipe, tmp_path / "run", StopAt(4))
    return recipe, tmp_path / "run"


def other_data(recipe: Recipe) -> None:
    path = Path(recipe["data_dir"]) / "reviews.train.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("the", "a"), encoding="utf-8")


def other_labels(recipe: Recipe) -> None:
    """Targets only: the texts, and so the tokens, stay."""
    path = Path(recipe["data_dir"]) / "questions.train.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    head = lines[0].split(",").index("same")
    assert head in (0, len(lines[0].split(",")) - 1)
    swapped = {"0": "1", "1": "0"}
    for number, line in enumerate(lines[1:8], start=1):
        if head == 0:
            cell, rest = line.split(",", 1)
            lines[number] = f"{swapped[cell]},{rest}"
        else:
            rest, cell = line.rsplit(",", 1)
            lines[number] = f"{rest},{swapped[cell]}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def other_encoder(recipe: Recipe) -> None:
    folder = Path(recipe["encoder"]["checkpoint"])
    shutil.rmtree(folder)
    tiny_encoder(folder, initializer_range=0.03)


def other_teacher(recipe: Recipe) -> None:
    teacher = Path(recipe["stages"][0]["distillation"]["teachers"][0])
    shutil.rmtree(teacher)
    changed = {**recipe, "seed": 5, "stages": [{**recipe["stages"][0], "max_steps": 2, "distillation": None}]}
    run(changed, teacher)


def other_recipe(recipe: Recipe) -> None:
    recipe["stages"][0]["clip_norm"] = 0.25


CHANGES: dict[str, tuple[Callable[[Recipe], None], str, tuple[str, ...]]] = {
    "data": (other_data, "reviews.train", ("data",)),
    "labels": (other_labels, "questions.train", ("labels", "data")),
    "encoder": (other_encoder, "weights", ("encoder",)),
    "teachers": (other_teacher, "teacher", ("teachers",)),
    "recipe": (other_recipe, "clip_norm: 0.25", ("recipe",)),
}


@pytest.mark.parametrize("what", list(CHANGES))
def test_a_change_is_refused_with_the_difference_unless_it_is_allowed(started: tuple[Recipe, Path], what: str) -> None:
    recipe, path = started
    change, named, allowed = CHANGES[what]
    change(recipe)
    before = {str(each): each.read_bytes() for each in path.rglob("*") if each.is_file()}
    with pytest.raises(UsageError, match="--allow-change") as told:
        run(recipe, path, resume=True)
    assert told.value.exit_code == 2
    assert "the difference is\n-" in str(told.value)
    assert "\n+" in str(told.value)
    assert named in str(told.value)
    assert {str(each): each.read_bytes() for each in path.rglob("*") if each.is_file()} == before
    others = tuple(each for each in CHANGES if each not in allowed)
    with pytest.raises(UsageError, match="--resume with"):
        run(recipe, path, resume=True, allow=others)
    events = Events()
    done = run(recipe, path, events, resume=True, allow=allowed)
    assert done.summary["steps"] == 9
    assert any("not bit-exact" in text for text in events.texts)
    state = RunFolder(path).read_state()
    (recorded,) = state["changes"]
    assert recorded.keys() - {"at"} <= {*allowed}
    assert any(named in line for lines in recorded.values() if isinstance(lines, list) for line in lines)
    if what == "recipe":
        assert yaml.safe_load((path / "recipe.yaml").read_text())["stages"][0]["clip_norm"] == 0.25


@pytest.mark.parametrize("what", ["data", "recipe"])
def test_an_allowed_change_is_the_run_s_own_from_there_on(started: tuple[Recipe, Path], what: str) -> None:
    """It is not asked for again, and what it replaced is another recipe or other data by now."""
    recipe, path = started
    original = json.loads(json.dumps(recipe))
    CHANGES[what][0](recipe)
    with pytest.raises(StoppedError):
        run(recipe, path, StopAt(1), resume=True, allow=(what,))
    if what == "recipe":
        with pytest.raises(UsageError, match="another recipe"):
            run(original, path, resume=True)
    run(recipe, path, resume=True)
    assert len(RunFolder(path).read_state()["changes"]) == 1


def changed(recipe: Mapping[str, Any], **stage: Any) -> Recipe:
    return {**recipe, "stages": [{**recipe["stages"][0], **stage}]}


def test_another_rate_takes_effect(started: tuple[Recipe, Path]) -> None:
    recipe, path = started
    other = changed(recipe, optimizer={"kind": "adamw", "lr": 5e-4})
    run(other, path, resume=True, allow=("recipe",))
    rates = [record["lr"] for record in steps_of(path)]
    unchanged = run(recipe, path.with_name("unchanged"))
    expected = [record["lr"] for record in steps_of(unchanged.path)]
    assert rates[:4] == expected[:4]
    assert rates[4:] == pytest.approx([rate / 2 for rate in expected[4:]])


def test_what_the_optimizer_state_depends_on_cannot_change_in_its_stage(started: tuple[Recipe, Path]) -> None:
    recipe, path = started
    before = {str(each): each.read_bytes() for each in path.rglob("*") if each.is_file()}
    for optimizer in ({"kind": "adamw", "lr": 1e-3, "weight_decay": 0.2}, {"kind": "adabelief", "lr": 1e-3}):
        with pytest.raises(UsageError, match=r"stages\.0\.optimizer: cannot change"):
            run(changed(recipe, optimizer=optimizer), path, resume=True, allow=("recipe",))
    assert {str(each): each.read_bytes() for each in path.rglob("*") if each.is_file()} == before
    run(recipe, path, resume=True)


def test_more_epochs(started: tuple[Recipe, Path]) -> None:
    recipe, path = started
    done = run(changed(recipe, epochs=4), path, resume=True, allow=("recipe",))
    assert done.summary["steps"] == 12
    assert [record["step"] for record in steps_of(path)] == list(range(1, 13))


@pytest.mark.parametrize("place", ["finish: begins", "finish: the report is written"])
def test_more_epochs_behind_the_end_of_a_stage_are_never_passed_over(tmp_path: Path, encoder: Path, place: str) -> None:
    """The run was stopped behind its last evaluation, before or behind its model was written."""
    recipe = tiny_recipe(encoder)
    with injected(AtVisit(place, send(signal.SIGTERM))), pytest.raises(StoppedError):
        run(recipe, tmp_path / "run")
    done = run(changed(recipe, epochs=3), tmp_path / "run", resume=True, allow=("recipe",))
    assert done.summary["steps"] == 9
    shipped, best = (load_file(done.path / name / "weights.safetensors") for name in ("model", "best"))
    assert all(torch.equal(tensor, shipped[name]) for name, tensor in best.items())
    assert (done.path / "model/recipe.yaml").read_bytes() == (done.path / "recipe.yaml").read_bytes()


def test_fewer_epochs_than_were_trained_are_refused(started: tuple[Recipe, Path]) -> None:
    recipe, path = started
    with pytest.raises(UsageError, match="ends at step 3"):
        run(changed(recipe, epochs=1), path, resume=True, allow=("recipe",))


def test_names_are_checked(started: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, path = started
    with pytest.raises(UsageError, match=r"'weights'.*recipe, data, labels, encoder, teachers"):
        run(recipe, path, resume=True, allow=("weights",))
    with pytest.raises(UsageError, match="a new run has nothing"):
        run(recipe, tmp_path / "new", allow=("data",))
    assert not (tmp_path / "new").exists()


def test_allowing_what_did_not_change_changes_nothing(started: tuple[Recipe, Path]) -> None:
    recipe, path = started
    run(recipe, path, resume=True, allow=("recipe", "data", "labels", "encoder", "teachers"))
    whole = run(recipe, path.with_name("whole"))
    assert ending(path) == ending(whole.path)
    assert "changes" not in RunFolder(path).read_state()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"balancing": "dwa"}, "does not fit what was trained"),
        ({"optimizer": {"kind": "adamw", "lr": 1e-3, "head_lr": 1e-2}}, "cannot change in a stage that has begun"),
    ],
)
def test_a_refused_change_leaves_the_run_as_it_was(
    started: tuple[Recipe, Path], changes: dict[str, Any], message: str
) -> None:
    recipe, path = started
    changed = {**recipe, "stages": [{**recipe["stages"][0], **changes}]}
    before = (path / "recipe.yaml").read_bytes()
    with pytest.raises(UsageError, match=message):
        run(changed, path, resume=True, allow=("recipe",))
    assert (path / "recipe.yaml").read_bytes() == before
    run(recipe, path, resume=True)


@pytest.mark.parametrize("key", ["precision", "encoder.checkpoint"])
def test_a_change_without_effect_is_refused(started: tuple[Recipe, Path], tmp_path: Path, key: str) -> None:
    recipe, path = started
    changed = {**recipe, "precision": "bf16"}
    if key == "encoder.checkpoint":
        other = shutil.copytree(recipe["encoder"]["checkpoint"], tmp_path / "moved")
        changed = {**recipe, "encoder": {**recipe["encoder"], "checkpoint": str(other)}}
    with pytest.raises(UsageError, match="has no effect behind the first step"):
        run(changed, path, resume=True, allow=("recipe",))


def test_another_tokenizer_before_the_first_checkpoint_is_refused(encoder: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(encoder, tmp_path / "encoder"))
    recipe = tiny_recipe(own)
    with injected(AtVisit("forward", send(signal.SIGTERM))), pytest.raises(StoppedError):
        run(recipe, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    (tmp_path / "run/checkpoints").mkdir()
    tokenizer = json.loads((own / "tokenizer.json").read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    words["the"], words["of"] = words["of"], words["the"]
    (own / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(UsageError, match=r"tokenizer\.json changed since the run began"):
        run(recipe, tmp_path / "run", resume=True)
