"""Training a recipe in a run folder, from the start or from where it was left."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from manyhead.build.parts import Parts, read_parts
from manyhead.build.plan import new_model, plan_stages
from manyhead.build.summary import now, state_of, summary_of
from manyhead.build.teaching import teach
from manyhead.data.fetch import PREFIX
from manyhead.data.task_data import TaskData
from manyhead.device import Hardware, choose_hardware
from manyhead.errors import CheckpointError, DivergedError, UsageError
from manyhead.evaluation.evaluate import Evaluation, evaluate
from manyhead.evaluation.predictions import write_predictions
from manyhead.files import read_json, write_json, writing
from manyhead.inference.model_folder import write_model
from manyhead.model import MultiTaskModel, build_objective
from manyhead.recipe.load import LoadedRecipe, load_recipe, recipe_yaml
from manyhead.recipe.schema import SPLITS, Recipe
from manyhead.report import write_report
from manyhead.training.checkpoint import Checkpoint, newest_valid
from manyhead.training.observer import Observer
from manyhead.training.run_folder import (
    MODEL,
    PREDICTIONS,
    RECIPE,
    SUMMARY,
    RunFolder,
    check_free,
    create_run,
    is_empty,
    open_run,
)
from manyhead.training.signals import stop_on_signals
from manyhead.training.stages import StagePlan, StageRunner

_DIFF_HEADS = ("+++", "---", "@@ ")
_PLACEMENT = ("data_dir", "device", "threads")
"""Keys that may change when a run goes on: the rows are compared by their hashes, the hardware is the recorded one."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what summary.json says."""

    path: Path
    summary: Mapping[str, Any] = field(repr=False)


def train(
    loaded: LoadedRecipe, *, out: Path | None = None, resume: bool = False, observer: Observer | None = None
) -> Run:
    """Trains ``loaded`` in the run folder ``out`` (default ``runs/NAME``), or goes on with it by ``resume``.

    Raises `UsageError` where the folder exists, `RecipeError` and `DataError` with everything wrong at once,
    `DivergedError` where training diverges, `StoppedError` where a signal ends it.
    """
    refuse_several(loaded)
    watcher = observer or Observer()
    path = out or Path("runs") / loaded.recipe.name
    if resume and path.is_dir() and not is_empty(path):
        folder = open_run(path)
        with folder.locked():
            return _resume(folder, loaded, watcher)
    if resume:
        watcher.event(f"there is no run at {path} yet; starting at step 0")
        if path.is_dir():
            path.rmdir()
    check_free(path)
    parts = read_parts(loaded, watcher)
    model = new_model(parts)
    plans = plan_stages(parts, model)
    folder = create_run(path, recipe_yaml(parts.recipe), state_of(parts), parts.save_encoder)
    with folder.locked():
        return _run(folder, parts, model, plans, watcher=watcher)


def refuse_several(loaded: LoadedRecipe) -> None:
    """Raises `UsageError` for a recipe that stands for several runs."""
    kind = "grid" if loaded.recipe.grid else "search" if loaded.recipe.search is not None else None
    if kind is not None:
        source = loaded.path or loaded.recipe.name
        one = "grid={}" if kind == "grid" else "search=null"
        raise UsageError(
            f"{source}: has a {kind}, so it stands for several runs; expected a recipe of one; run them by "
            f"manyhead study {source}, or one of them by --set {one} --set KEY=VALUE"
        )


def _resume(folder: RunFolder, loaded: LoadedRecipe, watcher: Observer) -> Run:
    """Goes on with the run in ``folder``, which is locked."""
    state = folder.read_state()
    stored = replace(loaded, recipe=_recipe_to_resume(folder, loaded.recipe))
    if state.get("status") == "finished":
        watcher.event(f"{folder.path} is finished already; nothing to do")
        return Run(folder.path, read_json(folder.path / SUMMARY))
    folder.remove_leftovers()
    checkpoint = _checkpoint_to_resume(folder, watcher)
    encoder = None if checkpoint is None else folder.encoder
    parts = read_parts(stored, watcher, encoder=encoder, hardware=_hardware_to_resume(state, stored.recipe))
    _check_same_data(folder, state, parts)
    _tell_differences(state, parts, watcher)
    model = new_model(parts)
    return _run(folder, parts, model, plan_stages(parts, model), watcher=watcher, checkpoint=checkpoint)


def _run(
    folder: RunFolder,
    parts: Parts,
    model: MultiTaskModel,
    plans: list[StagePlan],
    *,
    watcher: Observer,
    checkpoint: Checkpoint | None = None,
) -> Run:
    """Runs what is left of all stages, and writes what a finished run holds."""
    recipe, dev = parts.recipe, parts.split("dev")
    objectives = {name: build_objective(task, parts.tables) for name, task in recipe.tasks.items()}
    total = sum(data.n_examples for data in dev.values())

    def score() -> Evaluation | None:
        if not dev:
            return None
        return evaluate(model, recipe, dev, objectives, tick=lambda done: watcher.evaluating(done, total))

    primary = {name: task.metric for name, task in recipe.tasks.items()}
    folder.update_state(status="running")
    try:
        with stop_on_signals(watcher.event) as stop:
            runner = StageRunner(
                plans,
                folder,
                evaluate=score,
                teach=partial(teach, parts),
                primary=primary,
                observer=watcher,
                stop=stop,
            )
            if checkpoint is None:
                folder.cut_log(0)
            else:
                runner.resume(checkpoint)
            runner.run()
        final = runner.best_evaluation or score()
    except DivergedError as error:
        folder.update_state(status="diverged", reason=str(error))
        raise
    if final is not None:
        _write_dev_predictions(folder, recipe, dev, final)
    if not (folder.path / MODEL).exists():
        write_model(folder.path / MODEL, model, (folder.path / RECIPE).read_text(encoding="utf-8"), folder.encoder)
    summary = summary_of(parts, runner, final)
    with writing(str(folder.path / SUMMARY)):
        write_json(folder.path / SUMMARY, summary)
    folder.update_state(status="finished", finished=now())
    write_report(folder.path)
    watcher.finished(summary)
    return Run(folder.path, summary)


def _recipe_to_resume(folder: RunFolder, recipe: Recipe) -> Recipe:
    """The run's own recipe with the placement of ``recipe``; raises `UsageError` where ``recipe`` is another."""
    stored = load_recipe(folder.path / RECIPE).recipe
    stored = stored.with_changes(**{key: getattr(recipe, key) for key in _PLACEMENT})
    before, after = (recipe_yaml(each).splitlines() for each in (_unpinned(stored, recipe), _unpinned(recipe, recipe)))
    changed = [line for line in difflib.unified_diff(before, after, n=0, lineterm="") if line[:3] not in _DIFF_HEADS]
    if changed:
        lines = "\n".join(changed)
        raise UsageError(
            f"{folder.path}: --resume with another recipe; it differs in\n{lines}\nexpected the recipe of the run; "
            f"use {folder.path / RECIPE} or start a new run by --out"
        )
    return stored


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


def _checkpoint_to_resume(folder: RunFolder, watcher: Observer) -> Checkpoint | None:
    checkpoint, problems = newest_valid(folder.checkpoints)
    for problem in problems:
        watcher.event(problem)
    if checkpoint is not None:
        watcher.event(f"going on after step {checkpoint.step}")
    elif problems:
        raise CheckpointError(
            f"{folder.path}: none of the checkpoints can be used; expected one; start a new run by --out"
        )
    else:
        watcher.event(f"{folder.path} has no checkpoint yet; starting at step 0")
    return checkpoint


def _hardware_to_resume(state: Mapping[str, Any], recipe: Recipe) -> Hardware:
    """The recorded device, precision and threads; another device where the recorded one is not here."""
    recorded = state["hardware"]
    try:
        return choose_hardware(recorded["device"], recorded["precision"], recorded["threads"])
    except UsageError:
        return choose_hardware(recipe.device, recipe.precision, recipe.threads)


def _tell_differences(state: Mapping[str, Any], parts: Parts, watcher: Observer) -> None:
    """Says what keeps a resumed run from being the same bits."""
    before = {**state["hardware"], **state["versions"]}
    after = state_of(parts)
    current = {**after["hardware"], **after["versions"]}
    ignored = ("platform", "cores", "manyhead")
    changed = [
        f"{key} was {before.get(key)}, is {value}"
        for key, value in current.items()
        if key not in ignored and before.get(key) != value
    ]
    if changed:
        watcher.event(f"not bit-exact: {'; '.join(changed)}")


def _check_same_data(folder: RunFolder, state: Mapping[str, Any], parts: Parts) -> None:
    current = state_of(parts)
    before, after = ({**each["data"], **each["teachers"]} for each in (state, current))
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if changed:
        raise UsageError(
            f"{folder.path}: the data of {', '.join(changed)} changed since the run began; expected the same rows and "
            "labels to go on; bring them back or start a new run by --out"
        )


def _write_dev_predictions(folder: RunFolder, recipe: Recipe, dev: Mapping[str, TaskData], final: Evaluation) -> None:
    target = folder.path / PREDICTIONS
    with writing(str(target)):
        target.mkdir(exist_ok=True)
        for name, data in dev.items():
            write_predictions(target / f"{name}.dev.csv", recipe.tasks[name], data, final.predictions[name])
