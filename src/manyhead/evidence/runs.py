"""Finished runs as evidence: their recipe, the data they were scored on, and their predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyhead.errors import CheckpointError, ManyheadError
from manyhead.evaluation.scored import Scored
from manyhead.evidence.predictions import predictions_path, read_predictions
from manyhead.recipe.schema import Recipe
from manyhead.recipe.stored import load_stored_recipe
from manyhead.training.run_folder import RECIPE, open_run


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, read.

    Attributes:
        path: Its folder, as it was named.
        recipe: Its recipe.
        data: Of each TASK.SPLIT the number of rows and the hashes of data and labels, as state.json has them.
        dev: Predictions of the scored dev rows of each task that has them.
    """

    path: Path
    recipe: Recipe
    data: Mapping[str, Mapping[str, Any]]
    dev: Mapping[str, Scored]


def read_runs(paths: Sequence[Path], *, plugins: Sequence[str] = ()) -> list[FinishedRun]:
    """The runs in ``paths``. Raises `CheckpointError` that tells of all that are no finished run with predictions."""
    found, problems = read_those_finished(paths, plugins=plugins)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise CheckpointError("\n".join(map(str, problems)))
    return found


def read_those_finished(
    paths: Sequence[Path], *, plugins: Sequence[str] = ()
) -> tuple[list[FinishedRun], list[ManyheadError]]:
    """The finished runs with predictions among ``paths``, and what is wrong with each of the others."""
    found: list[FinishedRun] = []
    problems: list[ManyheadError] = []
    for path in paths:
        try:
            found.append(_read(path, plugins))
        except ManyheadError as error:
            problems.append(error)
    return found, problems


def _read(path: Path, plugins: Sequence[str]) -> FinishedRun:
    state = open_run(path).read_state()
    if state["status"] != "finished":
        raise CheckpointError(
            f"{path}: the run is not finished (its status is {state['status']}); expected a finished run; "
            "go on with it by manyhead train --resume"
        )
    recipe = load_stored_recipe(path / RECIPE, plugins=plugins).recipe
    scored = [name for name in recipe.tasks if f"{name}.dev" in state["data"]]
    absent = [name for name in scored if not predictions_path(path, name).is_file()]
    if absent or not scored:
        what = f"no predictions of {', '.join(absent)}" if absent else "no task has dev data"
        raise CheckpointError(f"{path}: {what}; expected RUN/predictions/TASK.dev.csv; name a run that has them")
    return FinishedRun(
        path, recipe, state["data"], {name: read_predictions(path, name, recipe.tasks[name]) for name in scored}
    )
