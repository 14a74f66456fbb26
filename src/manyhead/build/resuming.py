"""Going on with a run: whether it is still the same, and from where."""

import difflib
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from manyhead.build.parts import Parts
from manyhead.build.summary import state_of
from manyhead.data.fetch import PREFIX
from manyhead.device import Hardware, choose_hardware
from manyhead.errors import CheckpointError, UsageError
from manyhead.files import sha256_of
from manyhead.optimizers import GroupOptions
from manyhead.recipe.load import load_recipe, recipe_yaml
from manyhead.recipe.schema import PLACEMENT, SPLITS, Recipe
from manyhead.training.checkpoint import Checkpoint, load_checkpoint, newest_valid
from manyhead.training.observer import Observer
from manyhead.training.run_folder import RECIPE, RunFolder
from manyhead.training.stage_plan import StagePlan, best_of, progress_of

Change = Literal["recipe", "data", "labels", "encoder", "teachers"]
CHANGES: tuple[Change, ...] = get_args(Change)
"""What can be allowed to have changed since a run began."""

_ANOTHER: dict[Change, str] = {
    "recipe": "another recipe",
    "data": "other data",
    "labels": "other labels",
    "encoder": "another encoder",
    "teachers": "other teachers",
}

_RATE = "lr"
"""The key of an optimiser that a checkpoint does not hold: a changed one takes effect."""

_NEW_RUN = "start a new run by --out"
_DIFF_HEADS = ("+++", "---", "@@ ")


@dataclass
class Changes:
    """What has changed since a run began, line by line; raises `UsageError` for what is not ``allowed``."""

    folder: RunFolder
    allowed: Collection[str]

    def __post_init__(self) -> None:
        self.found: dict[Change, list[str]] = {}

    def add(self, what: Change, diff: list[str]) -> None:
        """Notes that ``what`` differs in the lines ``diff``, if there are any."""
        if not diff:
            return
        if what not in self.allowed:
            lines = "\n".join(diff)
            original = f"use {self.folder.path / RECIPE}" if what == "recipe" else "bring the original back"
            raise UsageError(
                f"{self.folder.path}: --resume with {_ANOTHER[what]}; the difference is\n{lines}\n"
                f"expected the {what} of the run; {original}, start a new run by --out, or go on with the change, to "
                f"other scores than those of one recipe, by --allow-change {what}"
            )
        self.found.setdefault(what, []).extend(diff)

    def __str__(self) -> str:
        return " and ".join(_ANOTHER[what] for what in self.found)


def recipe_to_resume(folder: RunFolder, recipe: Recipe, changes: Changes) -> tuple[Recipe, Recipe]:
    """The run's own recipe, placed as ``recipe``, and that to go on with: ``recipe`` itself, if it may be another."""
    stored = load_recipe(folder.path / RECIPE).recipe
    stored = stored.with_changes(**{key: getattr(recipe, key) for key in PLACEMENT})
    diff = _diff(*(recipe_yaml(each).splitlines() for each in (_unpinned(stored, recipe), _unpinned(recipe, recipe))))
    changes.add("recipe", diff)
    return stored, recipe if diff else stored


def checkpoint_to_resume(folder: RunFolder, watcher: Observer) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None where none was written yet.

    Raises `CheckpointError` where all are damaged.
    """
    checkpoint, problems = newest_valid(folder.checkpoints, folder.id, best_of)
    if checkpoint is None and problems:
        raise CheckpointError("\n".join([*problems, f"none of the checkpoints can be used; expected one; {_NEW_RUN}"]))
    for problem in problems:
        watcher.event(f"{problem}; the checkpoint before it is used")
    if checkpoint is not None:
        watcher.event(f"going on after step {checkpoint.step}")
    else:
        watcher.event(f"{folder.path} has no checkpoint yet; starting at step 0")
    return checkpoint


def hardware_to_resume(state: Mapping[str, Any], recipe: Recipe) -> Hardware:
    """The recorded device, precision and threads; another device where the recorded one is not here."""
    recorded = state["hardware"]
    try:
        return choose_hardware(recorded["device"], recorded["precision"], recorded["threads"])
    except UsageError:
        return choose_hardware(recipe.device, recipe.precision, recipe.threads)


def compare_parts(state: Mapping[str, Any], parts: Parts, changes: Changes, watcher: Observer) -> dict[str, Any]:
    """Adds what differs in data, labels, encoder and teachers to ``changes``, and says what keeps bits from being same.

    Returns what state.json is to say of them from here on.
    """
    current = state_of(parts)
    before, after = state["data"], current["data"]
    changes.add("data", _diff(_lines(before, "rows", "data"), _lines(after, "rows", "data")))
    changes.add("labels", _diff(_lines(before, "labels"), _lines(after, "labels")))
    changes.add("teachers", _diff(_pairs(state["teachers"]), _pairs(current["teachers"])))
    was, now = state["encoder"]["weights"], current["encoder"]["weights"]
    if now is not None:
        changes.add("encoder", _diff([f"weights {was}"], [f"weights {now}"]))
    _tell_differences({**state["hardware"], **state["versions"]}, current, watcher)
    encoder = state["encoder"] if now is None else current["encoder"]
    return {"data": after, "teachers": current["teachers"], "encoder": encoder}


def check_place(checkpoint: Checkpoint, before: Recipe, after: Recipe, plans: list[StagePlan]) -> None:
    """Raises `UsageError` where a changed recipe cannot go on at the checkpoint, or a change would have no effect."""
    progress, stage = progress_of(checkpoint), checkpoint.state["stage"]
    if progress.stage >= len(plans) or plans[progress.stage].options.name != stage:
        raise UsageError(
            f"stages: the run is in stage {progress.stage}, named '{stage}', which the recipe does not have; expected "
            "it at its place; change the stages behind it only"
        )
    before = _unpinned(before, after)
    begun_with = {
        "precision": (before.precision, after.precision),
        "encoder.checkpoint": (before.encoder.checkpoint, after.encoder.checkpoint),
    }
    for key, (was, now) in begun_with.items():
        if was != now:
            raise UsageError(f"{key}: has no effect behind the first step; expected '{was}' as it was; {_NEW_RUN}")
    for index, (was, now) in enumerate(zip(before.stages[: progress.stage], after.stages, strict=False)):
        if was != now:
            raise UsageError(f"stages.{index}: is over; expected the stage as it was; {_NEW_RUN}")
    plan = plans[progress.stage]
    concluded = progress.stage_done or progress.unscored
    if progress.stage_step > plan.total_steps or (progress.stage_step == plan.total_steps and not concluded):
        raise UsageError(
            f"stages.{progress.stage}: it ends at step {plan.total_steps}, the run is at step {progress.stage_step} of "
            "it; expected an end that is not reached yet; raise epochs or max_steps"
        )
    was, now = before.stages[progress.stage].optimizer, plan.options.optimizer
    assert isinstance(was, GroupOptions)
    assert isinstance(now, GroupOptions)
    diff = _diff(_pairs(_without_rates(was)), _pairs(_without_rates(now)))
    if diff:
        lines = "\n".join(diff)
        raise UsageError(
            f"stages.{progress.stage}.optimizer: cannot change in a stage that has begun, but for "
            f"{_RATE}; it differs in\n{lines}\nexpected the optimiser of the run; start a new run by --out"
        )


def check_fits(checkpoint: Checkpoint, plan: StagePlan) -> None:
    """Loads the checkpoint into ``plan``. Raises `UsageError` where a changed recipe has other parts than it."""
    learner = plan.learner
    try:
        load_checkpoint(checkpoint, learner.lesson.model, learner.extras, learner.optimizer)
    except CheckpointError as error:
        raise UsageError(
            f"the changed recipe does not fit what was trained: {error}; expected the same parts; {_NEW_RUN}"
        ) from error


def check_encoder(folder: RunFolder, parts: Parts) -> None:
    """Raises `UsageError` where the encoder's configuration or tokenizer are not those that the run keeps."""
    with tempfile.TemporaryDirectory(prefix="manyhead-encoder-") as fresh:
        parts.save_encoder(Path(fresh))
        for path in sorted(Path(fresh).iterdir()):
            kept = folder.encoder / path.name
            if not kept.is_file() or sha256_of(kept) != sha256_of(path):
                raise UsageError(
                    f"{parts.encoder}: {path.name} changed since the run began; expected the encoder of the run; bring "
                    f"the original back, or {_NEW_RUN}"
                )


def _without_rates(options: GroupOptions) -> dict[str, Any]:
    return {key: value for key, value in options.model_dump().items() if key != _RATE}


def _tell_differences(before: Mapping[str, Any], state: Mapping[str, Any], watcher: Observer) -> None:
    """Says what keeps a resumed run from being the same bits."""
    current = {**state["hardware"], **state["versions"]}
    ignored = ("platform", "cores")
    changed = [
        f"{key} was {before.get(key)}, is {value}"
        for key, value in current.items()
        if key not in ignored and before.get(key) != value
    ]
    if changed:
        watcher.event(f"not bit-exact: {'; '.join(changed)}")


def _lines(data: Mapping[str, Mapping[str, Any]], *keys: str) -> list[str]:
    """A line for each file of ``data``."""
    return [f"{name}: {', '.join(f'{key} {values[key]}' for key in keys)}" for name, values in data.items()]


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}: {value}" for key, value in values.items()]


def _diff(before: list[str], after: list[str]) -> list[str]:
    """The lines that differ, marked by - and +."""
    return [line for line in difflib.unified_diff(before, after, n=0, lineterm="") if line[:3] not in _DIFF_HEADS]


def _unpinned(recipe: Recipe, given: Recipe) -> Recipe:
    """``recipe`` without the revisions that a run adds where ``given`` names none."""
    tasks = {
        name: task.model_copy(
            update={
                "files": task.files.model_copy(
                    update={
                        split: reference.split("@")[0]
                        for split in SPLITS
                        if isinstance(reference := getattr(task.files, split), str)
                        and reference.startswith(PREFIX)
                        and name in given.tasks
                        and "@" not in str(getattr(given.tasks[name].files, split))
                    }
                )
            }
        )
        for name, task in recipe.tasks.items()
    }
    if given.encoder.revision is not None:
        return recipe.with_changes(tasks=tasks)
    return recipe.with_changes(tasks=tasks, encoder=recipe.encoder.model_copy(update={"revision": None}))
