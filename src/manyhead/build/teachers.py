"""Teachers of a distillation that are runs or models of ours: where they are, and whether they fit."""

from pathlib import Path

from manyhead.encoder.source import locate_encoder
from manyhead.errors import ManyheadError, Problem
from manyhead.files import sha256_of
from manyhead.inference.model_folder import RECIPE, model_in, weights_of
from manyhead.recipe.schema import Recipe, Stage, Task
from manyhead.recipe.stored import load_stored_recipe


def check_teachers(recipe: Recipe) -> list[Problem]:
    """What is wrong with teachers that are runs or models: missing, without a task of ours, or with other labels."""
    problems: list[Problem] = []
    for index, stage in enumerate(recipe.stages):
        for place, teacher in _foreign(recipe, stage).items():
            key = f"stages.{index}.distillation.teachers.{place}"
            try:
                stored = load_stored_recipe(model_in(teacher_folder(teacher)) / RECIPE, plugins=recipe.plugins).recipe
            except (ManyheadError, OSError) as error:
                expected = "the name of an earlier stage, or a run or model of ours"
                reason = str(error).partition(";")[0]  # what it says to do is about encoders
                problems.append(Problem(f"'{teacher}' is no teacher: {reason}", key=key, expected=expected))
                continue
            names = recipe.trained_tasks(stage)
            for name in names:
                if name in stored.tasks and not _same_target(stored.tasks[name], recipe.tasks[name]):
                    expected = f"the labels of the recipe: {_target(recipe.tasks[name])}"
                    problem = f"'{teacher}' has other labels for '{name}': {_target(stored.tasks[name])}"
                    problems.append(Problem(problem, key=key, expected=expected, do="choose another teacher"))
            if not any(name in stored.tasks for name in names):
                problem = f"'{teacher}' knows none of the stage's tasks, only {', '.join(stored.tasks)}"
                problems.append(Problem(problem, key=key, expected=f"one of {', '.join(names)}"))
    return problems


def teacher_hashes(recipe: Recipe) -> dict[str, str]:
    """The sha256 of each teacher's weights, by its name in the recipe."""
    teachers = {teacher for stage in recipe.stages for teacher in _foreign(recipe, stage).values()}
    return {teacher: sha256_of(weights_of(teacher_folder(teacher))) for teacher in sorted(teachers)}


def teacher_folder(teacher: str) -> Path:
    """The folder of a teacher that is a run or a model."""
    path = Path(teacher)
    return path if path.exists() else locate_encoder(teacher, None).folder


def _foreign(recipe: Recipe, stage: Stage) -> dict[int, str]:
    """The teachers of a stage that are no stages, by their place in the recipe's list."""
    teachers = stage.distillation.teachers if stage.distillation else []
    names = {each.name for each in recipe.stages}
    return {place: teacher for place, teacher in enumerate(teachers) if teacher not in names}


def _same_target(theirs: Task, ours: Task) -> bool:
    return theirs.kind == ours.kind and _target(theirs) == _target(ours)


def _target(task: Task) -> str:
    """Labels in order, or the range of a score; and how many texts are read."""
    what = ", ".join(task.label_names) if task.kind == "classification" else f"scores in {task.range}"
    return f"{what} of {len(task.text)} {'text' if len(task.text) == 1 else 'texts'}"
