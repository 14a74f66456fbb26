"""Training a recipe in a run folder, from the start or from where it was left."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from manyhead.build.calibrating import ScoredRows, calibrate, calibrated
from manyhead.build.finishing import finish
from manyhead.build.parts import Parts, read_parts
from manyhead.build.plan import new_model, plan_stages
from manyhead.build.resuming import (
    CHANGES,
    Changes,
    check_encoder,
    check_fits,
    check_place,
    checkpoint_to_resume,
    compare_parts,
    hardware_to_resume,
    recipe_to_resume,
)
from manyhead.build.summary import now, state_of, summary_of
from manyhead.build.teaching import teach
from manyhead.data.selection import picking_rows, scored_rows
from manyhead.data.task_data import TaskData
from manyhead.errors import DivergedError, StoppedError, UsageError
from manyhead.evaluation.errors.calibration import Temperature
from manyhead.evaluation.evaluate import Evaluation, evaluate
from manyhead.faults import at
from manyhead.files import read_json
from manyhead.model import MultiTaskModel, build_objective
from manyhead.recipe.load import LoadedRecipe, recipe_yaml
from manyhead.tracking.run import Trackers
from manyhead.training.checkpoint import Checkpoint
from manyhead.training.observer import Observer
from manyhead.training.run_folder import (
    SUMMARY,
    RunFolder,
    check_free,
    create_run,
    is_empty,
    open_run,
)
from manyhead.training.signals import Interruption, StopRequest, stop_on_signals
from manyhead.training.stage_plan import StagePlan, progress_of
from manyhead.training.stages import StageRunner, check_finite


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what summary.json says."""

    path: Path
    summary: Mapping[str, Any] = field(repr=False)


def train(
    loaded: LoadedRecipe,
    *,
    out: Path | None = None,
    resume: bool = False,
    allow_changes: Collection[str] = (),
    observer: Observer | None = None,
) -> Run:
    """Trains ``loaded`` in the run folder ``out`` (default ``runs/NAME``), or goes on with it by ``resume``.

    ``allow_changes`` names what may be other than when the run began (see `CHANGES`). Raises `UsageError` where the
    folder exists or something else has changed, `RecipeError` and `DataError` with everything wrong at once,
    `DivergedError` where training diverges, `StoppedError` where a signal ends it.
    """
    refuse_several(loaded)
    unknown = [name for name in allow_changes if name not in CHANGES]
    if unknown or (allow_changes and not resume):
        problem = f"'{unknown[0]}' is nothing that can change" if unknown else "a new run has nothing that could change"
        expected = f"one of {', '.join(CHANGES)}, beside --resume"
        raise UsageError(f"--allow-change: {problem}; expected {expected}; leave it out or correct it")
    watcher = observer or Observer()
    path = out or Path("runs") / loaded.recipe.name
    stop = StopRequest(watcher.event)
    try:
        with stop_on_signals(stop):
            return _train(loaded, path, watcher, stop, resume=resume, allowed=allow_changes)
    except Interruption:
        assert stop.signal_number is not None
        raise StoppedError(f"stopped; go on with {path} by --resume", stop.signal_number) from None


def _train(
    loaded: LoadedRecipe,
    path: Path,
    watcher: Observer,
    stop: StopRequest,
    *,
    resume: bool,
    allowed: Collection[str],
) -> Run:
    if resume and path.is_dir() and not is_empty(path):
        folder = open_run(path)
        with folder.locked():
            return _resume(folder, loaded, watcher, stop, Changes(folder, allowed))
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
        return _run(folder, parts, model, plans, watcher=watcher, stop=stop)


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


def _resume(folder: RunFolder, loaded: LoadedRecipe, watcher: Observer, stop: StopRequest, changes: Changes) -> Run:
    """Goes on with the run in ``folder``, which is locked."""
    state = folder.read_state()
    folder.undo_what_was_half_done()
    folder.check_whole()
    before, recipe = recipe_to_resume(folder, loaded.recipe, changes)
    stored = replace(loaded, recipe=recipe)
    if state["status"] == "finished":
        watcher.event(f"{folder.path} is finished already; nothing to do")
        return Run(folder.path, read_json(folder.path / SUMMARY))
    checkpoint = checkpoint_to_resume(folder, watcher)
    encoder = None if checkpoint is None else folder.encoder
    parts = read_parts(stored, watcher, encoder=encoder, hardware=hardware_to_resume(state, recipe))
    current = compare_parts(state, parts, changes, watcher)
    model = new_model(parts)
    plans = plan_stages(parts, model)
    if checkpoint is None:
        check_encoder(folder, parts)
    if changes.found:
        if checkpoint is not None:
            check_place(checkpoint, before, parts.recipe, plans)
            check_fits(checkpoint, plans[progress_of(checkpoint).stage])
        folder.update_state(**current, changes=[*state.get("changes", []), {"at": now(), **changes.found}])
        folder.remove_model()
        folder.replace_recipe(recipe_yaml(parts.recipe))
        watcher.event(f"not bit-exact: {changes}, as allowed")
    return _run(folder, parts, model, plans, watcher=watcher, stop=stop, checkpoint=checkpoint)


def _run(
    folder: RunFolder,
    parts: Parts,
    model: MultiTaskModel,
    plans: list[StagePlan],
    *,
    watcher: Observer,
    stop: StopRequest,
    checkpoint: Checkpoint | None = None,
) -> Run:
    """Runs what is left of all stages, and writes what a finished run holds."""
    recipe = parts.recipe
    picking, dev = picking_rows(recipe, parts.split("dev")), scored_rows(recipe, parts.split("dev"))
    objectives = {name: build_objective(task, parts.tables) for name, task in recipe.tasks.items()}

    def score(rows: Mapping[str, TaskData]) -> Evaluation | None:
        total = sum(data.n_examples for data in rows.values())

        def scored(done: int) -> None:
            watcher.evaluating(at("evaluation: a batch", done), total)
            stop.check()

        return evaluate(model, recipe, rows, objectives, keep_outputs=recipe.calibrate, tick=scored) if rows else None

    primary = {name: task.metric for name, task in recipe.tasks.items()}
    runner = StageRunner(
        plans,
        folder,
        evaluate=partial(score, picking),
        teach=partial(teach, parts, lambda _: stop.check()),
        primary=primary,
        observer=watcher,
        stop=stop,
    )
    calibration: dict[str, Temperature] = {}
    with Trackers(folder.path, folder.id, recipe.trackers, watcher.event) as trackers:
        try:
            folder.update_state(status="running", reason=None)
            if checkpoint is None:
                folder.cut_log(0)
            else:
                runner.resume(checkpoint)
            trackers.begin()
            runner.run()
            final = (runner.best_evaluation if recipe.select_on is None else None) or score(dev)
            if final is not None:
                check_finite(final, "the best checkpoint")
            if recipe.calibrate and final is not None:
                picked = final if recipe.select_on is None else runner.best_evaluation or score(picking)
                assert picked is not None
                rows = ScoredRows(picking, picked), ScoredRows(dev, final)
                calibration = calibrate(model, recipe, objectives, *rows)
                final = calibrated(model, objectives, final)
            finish(folder, parts, runner, final, calibration=calibration, tick=lambda _: stop.check())
        except DivergedError as error:
            folder.update_state(status="diverged", reason=str(error))
            raise
        except Interruption:
            folder.update_state(status="stopped")
            raise
    summary = summary_of(parts, runner, final, calibration)
    watcher.finished(summary)
    return Run(folder.path, summary)
