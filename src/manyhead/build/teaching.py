"""What the teachers of a distillation predict for the training rows."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from manyhead.build.parts import Parts
from manyhead.build.teachers import teacher_folder
from manyhead.data.cache import load_task_data
from manyhead.data.resolve import resolve_files
from manyhead.inference.frozen import freeze_for_inference
from manyhead.inference.model_folder import read_model
from manyhead.inference.outputs import TaskPredictions, predict_store
from manyhead.model import build_objective, load_weights
from manyhead.schedules.base import Indices
from manyhead.training.stage_plan import StagePlan

Tick = Callable[[int], None]


def teach(parts: Parts, tick: Tick, plan: StagePlan, stages: Mapping[str, Path]) -> None:
    """Fills the plan's teaching with what its teachers predict for the rows in use, averaged where several know a task.

    ``stages`` maps the teachers that are earlier stages to their weights, which are loaded into the model: its own are
    lost. ``tick`` is called with the rows done after each batch.
    """
    teaching, lesson = plan.learner.lesson.teaching, plan.learner.lesson
    assert teaching is not None
    assert plan.options.distillation is not None
    found: dict[str, list[TaskPredictions]] = {name: [] for name in lesson.data}
    for teacher in plan.options.distillation.teachers:
        if teacher in stages:
            load_weights(lesson.model, stages[teacher])
            trained = next(stage for stage in parts.recipe.stages if stage.name == teacher)
            for name in found.keys() & parts.recipe.learned_tasks(trained):
                objective = build_objective(parts.recipe.tasks[name], parts.tables)
                store = lesson.data[name].tokens.take(plan.rows[name])
                predicted = predict_store(
                    lesson.model, name, store, objective, segment_ids=lesson.segment_ids, tick=tick
                )
                found[name].append(predicted)
        else:
            for name, predictions in _foreign_predictions(parts, tick, teacher, plan.rows).items():
                found[name].append(predictions)
    for name, several in found.items():
        if several:
            teaching.predictions[name] = _mean(several, plan.rows[name], lesson.data[name].n_examples)


def _foreign_predictions(
    parts: Parts, tick: Tick, teacher: str, rows: Mapping[str, Indices]
) -> dict[str, TaskPredictions]:
    """Predictions of a run or model of ours, which reads the texts with its own tokenizer."""
    stored = read_model(teacher_folder(teacher), plugins=parts.recipe.plugins)
    model = stored.model.to(parts.hardware.device)
    model.temperatures = {}  # the stage says at which temperature its teachers count
    freeze_for_inference(model, parts.hardware.autocast)
    found: dict[str, TaskPredictions] = {}
    for name in rows.keys() & stored.recipe.tasks.keys():
        theirs = stored.recipe.tasks[name]
        task = parts.recipe.tasks[name].model_copy(update={"pairing": theirs.pairing})
        recipe = parts.recipe.with_changes(encoder=stored.recipe.encoder, tasks={name: task})
        data = load_task_data(name, "train", recipe, stored.tokenizer, resolve=resolve_files(recipe))
        objective = build_objective(theirs, stored.tables)
        store = data.tokens.take(rows[name])
        segment_ids = stored.recipe.encoder.segment_ids
        found[name] = predict_store(model, name, store, objective, segment_ids=segment_ids, tick=tick)
    return found


def _mean(several: list[TaskPredictions], rows: Indices, examples: int) -> TaskPredictions:
    """The mean prediction of each row in use, at its place among all ``examples``."""
    values = [each.scores if each.probabilities is None else each.probabilities for each in several]
    mean = np.mean([value for value in values if value is not None], axis=0, dtype=np.float32)
    placed = np.zeros((examples, *mean.shape[1:]), dtype=np.float32)
    placed[rows] = mean
    return TaskPredictions(None, placed) if placed.ndim == 1 else TaskPredictions(placed, None)
