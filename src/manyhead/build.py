"""From a recipe to a run: the one place where all parts of a training run meet."""

import difflib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PretrainedConfig

from manyhead.data.cache import TaskData, default_cache_dir, load_task_data
from manyhead.data.check import check_data
from manyhead.data.examples import reference_of, resolver
from manyhead.data.fetch import PREFIX, fetch, pin_recipe_references
from manyhead.device import Hardware, choose_hardware
from manyhead.encoder.load import read_config
from manyhead.encoder.source import EMBEDDED, EncoderSource, locate_encoder
from manyhead.encoder.tokenizer import check_vocabulary, load_tokenizer
from manyhead.errors import CheckpointError, DivergedError, UsageError
from manyhead.evaluation.evaluate import Evaluation, evaluate
from manyhead.evaluation.metrics import majority_baseline, task_scores
from manyhead.evaluation.predictions import write_predictions
from manyhead.files import read_json, write_json, writing
from manyhead.inference.model_folder import read_model, save_encoder_files, write_model
from manyhead.model import MultiTaskModel, build_model, build_objective
from manyhead.objectives.base import Objective
from manyhead.optimizers import GroupOptions
from manyhead.optimizers.groups import parameter_groups
from manyhead.recipe.load import LoadedRecipe, load_recipe, recipe_yaml
from manyhead.recipe.schema import SPLITS, Recipe, Split, Stage, Tables, Task
from manyhead.recipe.tables import builder
from manyhead.report import write_report
from manyhead.schedules.base import Schedule, StreamOptions
from manyhead.schedules.streams import BatchStream
from manyhead.training.checkpoint import newest_valid
from manyhead.training.observer import Observer
from manyhead.training.run_folder import (
    MODEL,
    PREDICTIONS,
    RECIPE,
    SUMMARY,
    RunFolder,
    check_free,
    create_run,
    open_run,
)
from manyhead.training.signals import StopRequest, stop_on_signals
from manyhead.training.stages import StagePlan, StageRunner
from manyhead.training.step import Learner

TRAINING_SPLITS: tuple[Split, ...] = ("train", "dev")
_DIFF_HEADS = ("+++", "---", "@@ ")

SCORE_BUCKETS = 5
"""Buckets of a score that ``balanced`` draws equally."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what summary.json says."""

    path: Path
    summary: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Parts:
    """Everything read before training starts."""

    recipe: Recipe
    tables: Tables
    source: EncoderSource
    config: PretrainedConfig
    tokenizer: Tokenizer
    data: Mapping[tuple[str, str], TaskData]
    hardware: Hardware

    def save_encoder(self, folder: Path) -> None:
        """Writes the encoder's configuration and tokenizer into ``folder``."""
        save_encoder_files(encoder_folder(self.source), self.config, self.tokenizer, folder)

    def split(self, split: str) -> dict[str, TaskData]:
        """The tasks' data of one split, in recipe order."""
        return {task: data for (task, name), data in self.data.items() if name == split}


def train(
    loaded: LoadedRecipe, *, out: Path | None = None, resume: bool = False, observer: Observer | None = None
) -> Run:
    """Trains ``loaded`` in the run folder ``out`` (default ``runs/NAME``), or goes on with it by ``resume``.

    Raises `UsageError` where the folder exists, `RecipeError` and `DataError` with everything wrong at once,
    `DivergedError` where training diverges, `StoppedError` where a signal ends it.
    """
    watcher = observer or Observer()
    path = out or Path("runs") / loaded.recipe.name
    recipe = _with_absolute_checkpoint(loaded)
    if resume and path.exists():
        folder = open_run(path)
        recipe = _recipe_to_resume(folder, recipe)
        if folder.read_state().get("status") == "finished":
            watcher.event(f"{path} is finished already; nothing to do")
            return Run(path, read_json(path / SUMMARY))
        parts = read_parts(recipe, loaded, watcher)
        _check_same_data(folder, parts)
    else:
        check_free(path)
        if resume:
            watcher.event(f"{path} does not exist; starting at step 0")
        parts = read_parts(recipe, loaded, watcher)
        folder = create_run(path, recipe_yaml(parts.recipe), _initial_state(parts), parts.save_encoder)
    with folder.locked(), stop_on_signals() as stop:
        folder.update_state(status="running")
        try:
            return _run(folder, parts, watcher, stop)
        except DivergedError as error:
            folder.update_state(status="diverged", reason=str(error))
            raise


def read_parts(recipe: Recipe, loaded: LoadedRecipe, watcher: Observer) -> Parts:
    """The encoder's files, the tokenizer and the data; nothing is trained and nothing written but caches."""
    source = locate_encoder(recipe.encoder.checkpoint, recipe.encoder.revision, base=None)
    for note in source.notes:
        watcher.event(note)
    encoder = encoder_folder(source)
    config = read_config(encoder, dropout=recipe.encoder.dropout, attention_dropout=recipe.encoder.attention_dropout)
    tokenizer = load_tokenizer(encoder)
    check_vocabulary(tokenizer, config.vocab_size, encoder)
    hub_cache = default_cache_dir() / "hub"
    recipe = pin_recipe_references(recipe, hub_cache, encoder_revision=source.revision)
    resolve = resolver(Path(recipe.data_dir), partial(fetch, cache_dir=hub_cache))
    report = check_data(recipe, place=loaded.place, resolve=resolve)
    report.raise_errors()
    for warning in report.warnings:
        watcher.event(str(warning))
    data = {
        (name, split): load_task_data(name, split, recipe, tokenizer, resolve=resolve)
        for split in TRAINING_SPLITS
        for name, task in recipe.tasks.items()
        if reference_of(task, split) is not None
    }
    hardware = choose_hardware(recipe.device, recipe.precision, recipe.threads)
    return Parts(recipe, loaded.tables, source, config, tokenizer, data, hardware)


def encoder_folder(source: EncoderSource) -> Path:
    """Where configuration and tokenizer of a source are: in a run or model of ours below encoder/."""
    if source.kind != "manyhead":
        return source.folder
    inside = source.folder / MODEL if (source.folder / MODEL).is_dir() else source.folder
    return inside / "encoder"


def new_model(parts: Parts) -> MultiTaskModel:
    """The recipe's model with the source's weights; from a run or model of ours, heads of equal labels are kept."""
    if parts.source.kind != "manyhead":
        return build_model(parts.recipe, parts.tables, parts.config, parts.source.folder)
    model = build_model(parts.recipe, parts.tables, parts.config, None)
    stored = read_model(parts.source.folder, plugins=parts.recipe.plugins)
    model.encoder.load_state_dict(stored.model.encoder.state_dict())
    if stored.recipe.encoder.pooling == parts.recipe.encoder.pooling:
        model.pooling.load_state_dict(stored.model.pooling.state_dict())
    for name, task in parts.recipe.tasks.items():
        before = stored.recipe.tasks.get(name)
        if before is not None and _same_head(before, task):
            model.head(name).load_state_dict(stored.model.head(name).state_dict())
    return model


def plan_stages(parts: Parts, model: MultiTaskModel) -> list[StagePlan]:
    """Every stage of the recipe, built over one model."""
    return [_plan(parts, model, index, stage) for index, stage in enumerate(parts.recipe.stages)]


def plan_schedule(parts: Parts, index: int, stage: Stage) -> Schedule:
    """The schedule of stage ``index``."""
    recipe, train_data = parts.recipe, parts.split("train")
    streams: dict[str, BatchStream] = {}
    for name in recipe.trained_tasks(stage):
        data = train_data[name]
        options = StreamOptions(
            batch_size=stage.batch_size_of(name),
            subsample=stage.subsample.get(name),
            epoch_examples=stage.epoch_examples.get(name),
            length_window=stage.length_window,
            groups=_groups(data, recipe.tasks[name]) if name in stage.balanced else None,
        )
        lengths = data.tokens.lengths().reshape(data.tokens.n_examples, -1).sum(1)
        streams[name] = BatchStream(data.tokens.n_examples, options, (recipe.seed, index, name), lengths)
    build = builder(parts.tables, "schedules", stage.schedule)
    return build(stage.schedule, streams, seed=recipe.seed, stage=index, epochs=stage.epochs)


def _plan(parts: Parts, model: MultiTaskModel, index: int, stage: Stage) -> StagePlan:
    recipe, tables = parts.recipe, parts.tables
    names = recipe.trained_tasks(stage)
    train_data = {name: parts.data[name, "train"] for name in names}
    schedule = plan_schedule(parts, index, stage)
    total = schedule.epoch_steps * stage.epochs
    total = total if stage.max_steps is None else min(total, stage.max_steps)
    options = stage.optimizer
    if not isinstance(options, GroupOptions):
        raise UsageError(f"stages.{index}.optimizer: options of '{options.kind}' are no GroupOptions")
    groups = parameter_groups(
        options, list(model.named_parameters()), model.encoder.depths("encoder."), model.encoder.n_layers
    )
    learner = Learner(
        model=model,
        data=train_data,
        objectives={name: _objective(recipe.tasks[name], tables, train_data[name]) for name in names},
        balancer=builder(tables, "balancing", stage.balancing)(stage.balancing, names),
        optimizer=builder(tables, "optimizers", options)(options, groups),
        clip_norm=stage.clip_norm,
        accumulation=stage.accumulation,
        segment_ids=recipe.encoder.segment_ids,
        lr=options.lr,
        seed=recipe.seed,
        stage=stage.name,
    )
    rate = builder(tables, "rates", stage.rate)(stage.rate, total, schedule.epoch_steps)
    return StagePlan(stage, learner, schedule, rate, total)


def _run(folder: RunFolder, parts: Parts, watcher: Observer, stop: StopRequest) -> Run:
    recipe = parts.recipe
    model = new_model(parts).to(parts.hardware.device)
    model.autocast = parts.hardware.autocast
    model.encoder.sparse_embedding_gradients(parts.hardware.device == "cpu")
    plans = plan_stages(parts, model)
    dev = parts.split("dev")
    objectives = {name: build_objective(task, parts.tables) for name, task in recipe.tasks.items()}
    total = sum(data.tokens.n_examples for data in dev.values())

    def score() -> Evaluation | None:
        if not dev:
            return None
        return evaluate(model, recipe, dev, objectives, tick=lambda done: watcher.evaluating(done, total))

    primary = {name: task.metric for name, task in recipe.tasks.items()}
    runner = StageRunner(plans, folder, evaluate=score, primary=primary, observer=watcher, stop=stop)
    _resume_from_checkpoint(runner, folder, watcher)
    runner.run()
    final = runner.best_evaluation or score()
    if final is not None:
        _write_dev_predictions(folder, recipe, dev, final)
    if not (folder.path / MODEL).exists():
        write_model(folder.path / MODEL, model, (folder.path / RECIPE).read_text(encoding="utf-8"), folder.encoder)
    summary = _summary(parts, runner, plans, final)
    with writing(str(folder.path / SUMMARY)):
        write_json(folder.path / SUMMARY, summary)
    folder.update_state(status="finished", finished=_now())
    write_report(folder.path)
    watcher.finished(summary)
    return Run(folder.path, summary)


def _with_absolute_checkpoint(loaded: LoadedRecipe) -> Recipe:
    """The recipe with a checkpoint folder, which may be relative to the recipe's file, as an absolute path."""
    encoder = loaded.recipe.encoder
    bases = [Path()] if loaded.path is None else [loaded.path.parent, Path()]
    folder = next((base / encoder.checkpoint for base in bases if (base / encoder.checkpoint).is_dir()), None)
    if folder is None or encoder.checkpoint == EMBEDDED:
        return loaded.recipe
    return loaded.recipe.with_changes(encoder=encoder.model_copy(update={"checkpoint": str(folder.resolve())}))


def _recipe_to_resume(folder: RunFolder, recipe: Recipe) -> Recipe:
    """The run's own recipe, with its pinned revisions; raises `UsageError` where ``recipe`` is another."""
    stored = load_recipe(folder.path / RECIPE).recipe
    before, now = (recipe_yaml(_unpinned(each)).splitlines() for each in (stored, recipe))
    changed = [line for line in difflib.unified_diff(before, now, n=0, lineterm="") if line[:3] not in _DIFF_HEADS]
    if changed:
        lines = "\n".join(changed)
        raise UsageError(
            f"{folder.path}: --resume with another recipe; it differs in\n{lines}\nexpected the recipe of the run; "
            f"use {folder.path / RECIPE} or start a new run by --out"
        )
    return stored


def _unpinned(recipe: Recipe) -> Recipe:
    """The recipe without the revisions that a run adds to it."""
    tasks = {
        name: task.model_copy(
            update={
                "files": task.files.model_copy(
                    update={
                        split: reference.split("@")[0]
                        for split in SPLITS
                        if isinstance(reference := getattr(task.files, split), str) and reference.startswith(PREFIX)
                    }
                )
            }
        )
        for name, task in recipe.tasks.items()
    }
    return recipe.with_changes(tasks=tasks, encoder=recipe.encoder.model_copy(update={"revision": None}))


def _check_same_data(folder: RunFolder, parts: Parts) -> None:
    before, now = folder.read_state().get("data", {}), _initial_state(parts)["data"]
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        raise UsageError(
            f"{folder.path}: the data of {', '.join(changed)} changed since the run began; expected the same rows and "
            "labels to go on; bring them back or start a new run by --out"
        )


def _resume_from_checkpoint(runner: StageRunner, folder: RunFolder, watcher: Observer) -> None:
    checkpoint, problems = newest_valid(folder.checkpoints)
    for problem in problems:
        watcher.event(problem)
    if checkpoint is None and problems:
        raise CheckpointError(
            f"{folder.path}: none of the checkpoints can be used; expected one; start a new run by --out"
        )
    if checkpoint is not None:
        runner.resume(checkpoint)
        watcher.event(f"going on after step {checkpoint.step}")
    else:
        folder.cut_log(0)


def _objective(task: Task, tables: Tables, data: TaskData) -> Objective:
    counts = None
    if task.kind == "classification" and data.targets is not None:
        counts = np.bincount(data.targets, minlength=len(task.label_names)).tolist()
    return build_objective(task, tables, counts)


def _groups(data: TaskData, task: Task) -> NDArray[np.int64]:
    """Each row's class, or the bucket of its score."""
    assert data.targets is not None
    if task.kind == "classification":
        return data.targets.astype(np.int64)
    low, high = task.range or (float(data.targets.min()), float(data.targets.max()))
    share = (data.targets - low) / max(high - low, 1e-12)
    return np.clip((share * SCORE_BUCKETS).astype(np.int64), 0, SCORE_BUCKETS - 1)


def _same_head(before: Task, now: Task) -> bool:
    def shape(task: Task) -> tuple[object, ...]:
        # Labels as lists: two mappings in another order are equal, their classes are not.
        return task.kind, task.label_cells, task.label_names, task.head, task.loss, task.sequences_per_example

    return shape(before) == shape(now)


def _write_dev_predictions(folder: RunFolder, recipe: Recipe, dev: Mapping[str, TaskData], final: Evaluation) -> None:
    target = folder.path / PREDICTIONS
    with writing(str(target)):
        target.mkdir(exist_ok=True)
        for name, data in dev.items():
            write_predictions(target / f"{name}.dev.csv", recipe.tasks[name], data, final.predictions[name])


def _summary(parts: Parts, runner: StageRunner, plans: list[StagePlan], final: Evaluation | None) -> dict[str, Any]:
    progress = runner.progress
    return {
        "name": parts.recipe.name,
        "seed": parts.recipe.seed,
        "status": "finished",
        "dev": None if final is None else final.as_dict(),
        "baseline": {"tasks": _baseline(parts)},
        "primary": runner.primary,
        "best": {"stage": plans[progress.stage].options.name, "step": progress.best_step},
        "steps": progress.step,
        "seconds": round(progress.seconds, 3),
        "examples": progress.examples,
        "tokens": progress.tokens,
        "hardware": parts.hardware.describe(),
    }


def _baseline(parts: Parts) -> dict[str, dict[str, float | int]]:
    """Dev scores of predicting the most frequent training class, or the mean training score."""
    found: dict[str, dict[str, float | int]] = {}
    train_data = parts.split("train")
    for name, dev in parts.split("dev").items():
        task = parts.recipe.tasks[name]
        train_targets = train_data[name].targets if name in train_data else None
        if train_targets is not None and dev.targets is not None:
            guess = majority_baseline(task.kind, train_targets, dev.targets)
            found[name] = task_scores(task.kind, guess, dev.targets, task.range, len(task.label_names))
    return found


def _initial_state(parts: Parts) -> dict[str, Any]:
    names = ("manyhead", "torch", "transformers", "tokenizers", "safetensors", "numpy")
    return {
        "status": "new",
        "created": _now(),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in names}},
        "hardware": parts.hardware.describe(),
        "encoder": {"checkpoint": parts.recipe.encoder.checkpoint, "revision": parts.source.revision},
        "data": {
            f"{task}.{split}": {"rows": data.tokens.n_examples, "data": data.data_hash, "labels": data.label_hash}
            for (task, split), data in parts.data.items()
            if split != "test"
        },
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
