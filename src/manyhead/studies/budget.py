"""Cutting a recipe down to a budget: fewer epochs, smaller data, higher rates, the embedded encoder.

What a stage sees follows from its schedule (an interleaved one repeats its small tasks, a sequential one has all of
them in turn), so the examples are those that the schedule itself counts. They are cut by one fraction of every task's
epoch (``epoch_examples``): proportions between tasks stay, every task is reached, and rows are not repeated sooner.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from manyhead.optimizers import GroupOptions
from manyhead.recipe.schema import EMBEDDED, Options, Recipe, Split, Stage, Tables
from manyhead.recipe.tables import builder
from manyhead.schedules.base import Schedule, StreamOptions
from manyhead.schedules.streams import BatchStream, rows_in_use
from manyhead.studies.schema import Budget

_HALVINGS = 40


def shorten(recipe: Recipe, budget: Budget, *, keep_encoder: bool) -> Recipe:
    """``recipe`` with all of the budget but its number of examples. ``keep_encoder``: also one from the hub."""
    return recipe.with_changes(
        encoder=recipe.encoder if keep_encoder else _encoder(recipe, budget),
        tasks={name: task.model_copy(update=_limit(task.limit, budget)) for name, task in recipe.tasks.items()},
        stages=[_shortened(stage, budget) for stage in recipe.stages],
    )


def allowances(recipe: Recipe, rows: Mapping[str, int], tables: Tables, budget: Budget) -> list[float]:
    """The examples that each stage may see: all, or its share of the budget. ``rows``: training rows by task."""
    wanted = [stage_examples(recipe, index, rows, tables) for index in range(len(recipe.stages))]
    if budget.examples is None or sum(wanted) <= budget.examples:
        return wanted
    return shares(wanted, budget.examples, budget.stage_share)


def cut(recipe: Recipe, rows: Mapping[str, int], tables: Tables, allowed: Sequence[float]) -> Recipe:
    """``recipe`` with stages that see no more examples than ``allowed``, or one batch of each task."""
    stages = [
        stage if stage_examples(recipe, index, rows, tables) <= limit else _cut(recipe, index, rows, tables, limit)
        for index, (stage, limit) in enumerate(zip(recipe.stages, allowed, strict=True))
    ]
    return recipe.with_changes(stages=[scored_by_epoch(stage) for stage in stages])


def stage_examples(recipe: Recipe, index: int, rows: Mapping[str, int], tables: Tables) -> float:
    """Training examples that stage ``index`` sees, over all epochs; expected ones where tasks are drawn."""
    return sum(seen_examples(recipe, index, recipe.stages[index], rows, tables).values())


def seen_examples(
    recipe: Recipe, index: int, stage: Stage, rows: Mapping[str, int], tables: Tables
) -> dict[str, float]:
    """Examples of each task that stage ``index``, or ``stage`` in its place, sees over all epochs."""
    schedule = _schedule(recipe, index, stage, rows, tables)
    steps = schedule.epoch_steps * stage.epochs
    epochs = stage.epochs if stage.max_steps is None else stage.epochs * min(1.0, stage.max_steps / steps)
    return {task: examples * epochs for task, examples in schedule.epoch_examples.items()}


def begun_epochs(recipe: Recipe, index: int, rows: Mapping[str, int], tables: Tables) -> int:
    """Epochs that stage ``index`` begins, each of which ends with an evaluation."""
    stage = recipe.stages[index]
    if stage.max_steps is None:
        return stage.epochs
    return min(stage.epochs, -(-stage.max_steps // _schedule(recipe, index, stage, rows, tables).epoch_steps))


def shares(wanted: list[float], total: int, least: float) -> list[float]:
    """``total`` in proportion to what is wanted, but each at least ``least`` of it (or all alike, if they are many)."""
    floor = total * min(least, 1 / len(wanted))
    given = [total * each / sum(wanted) for each in wanted]
    while any(each < floor for each in given):
        low = [each <= floor for each in given]
        rest = sum(each for each, is_low in zip(wanted, low, strict=True) if not is_low)
        left = total - floor * sum(low)
        given = [floor if is_low else left * each / rest for each, is_low in zip(wanted, low, strict=True)]
    return given


def faster(options: Options, factor: float) -> Options:
    """An optimiser's options with its rates multiplied."""
    if not isinstance(options, GroupOptions):
        return options
    rates = {"lr": options.lr, "head_lr": options.head_lr}
    changes = {key: float(f"{rate * factor:.12g}") for key, rate in rates.items() if rate is not None}
    return options.model_copy(update=changes)


def scored_by_epoch(stage: Stage) -> Stage:
    """The stage evaluated and saved once an epoch, which is enough for a short run."""
    changes = {"evaluate_every_steps": None, "checkpoint_every_steps": None, "keep_checkpoints": 1}
    return stage.model_copy(update=changes)


def _schedule(recipe: Recipe, index: int, stage: Stage, rows: Mapping[str, int], tables: Tables) -> Schedule:
    """The stage's schedule as far as it counts: which rows are drawn is left out."""
    streams = {
        name: BatchStream(
            rows_in_use(rows[name], stage.subsample.get(name)),
            StreamOptions(stage.batch_size_of(name), epoch_examples=stage.epoch_examples.get(name)),
            (recipe.seed, index, name),
        )
        for name in recipe.trained_tasks(stage)
    }
    build = builder(tables, "schedules", stage.schedule)
    return cast("Schedule", build(stage.schedule, streams, seed=recipe.seed, stage=index, epochs=stage.epochs))


def _cut(recipe: Recipe, index: int, rows: Mapping[str, int], tables: Tables, allowed: float) -> Stage:
    """The stage with the largest fraction of each task's epoch that keeps to ``allowed`` examples; at least a batch."""
    stage = recipe.stages[index]
    full = {
        name: stage.epoch_examples.get(name, rows_in_use(rows[name], stage.subsample.get(name)))
        for name in recipe.trained_tasks(stage)
    }

    def part(fraction: float) -> Stage:
        counts = {name: max(1, int(fraction * count)) for name, count in full.items()}
        return stage.model_copy(update={"epoch_examples": counts})

    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(seen_examples(recipe, index, part(middle), rows, tables).values()) <= allowed:
            low = middle
        else:
            high = middle
    found = part(low)
    return found if stage.distillation is None else _without_unseen_rows(recipe, index, found, rows, tables)


def _without_unseen_rows(recipe: Recipe, index: int, stage: Stage, rows: Mapping[str, int], tables: Tables) -> Stage:
    """The stage with no more rows than it sees: teachers predict all that are in use."""
    subsample = dict(stage.subsample)
    for name, seen in seen_examples(recipe, index, stage, rows, tables).items():
        size = stage.batch_size_of(name)
        needed = -(-round(seen) // size) * size
        if 1 < needed < rows_in_use(rows[name], stage.subsample.get(name)):
            subsample[name] = float(needed)
    return stage.model_copy(update={"subsample": subsample})


def _shortened(stage: Stage, budget: Budget) -> Stage:
    sizes = stage.batch_size
    if budget.batch_size is not None and isinstance(sizes, int):
        sizes = min(sizes, budget.batch_size)
    elif budget.batch_size is not None and isinstance(sizes, dict):
        sizes = {name: min(size, budget.batch_size) for name, size in sizes.items()}
    return stage.model_copy(
        update={
            "epochs": stage.epochs if budget.epochs is None else min(stage.epochs, budget.epochs),
            "batch_size": sizes,
            "accumulation": min(stage.accumulation, budget.batch_size or stage.accumulation),
            "optimizer": faster(stage.optimizer, budget.rate_factor),
        }
    )


def _encoder(recipe: Recipe, budget: Budget) -> Any:
    """The encoder of the budget in the place of one from the hub."""
    checkpoint = recipe.encoder.checkpoint
    if budget.checkpoint is None or checkpoint == EMBEDDED or Path(checkpoint).is_dir():
        return recipe.encoder
    return recipe.encoder.model_copy(update={"checkpoint": budget.checkpoint, "revision": None})


def _limit(limit: Mapping[Split, int], budget: Budget) -> dict[str, Any]:
    if budget.dev_rows is None:
        return {}
    return {"limit": {**limit, "dev": min(limit.get("dev", budget.dev_rows), budget.dev_rows)}}
