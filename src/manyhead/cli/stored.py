"""Finding a model that was trained, and reading its recipe before anything heavy is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from manyhead.errors import CheckpointError, ManyheadError, Problem, RecipeError, UsageError

if TYPE_CHECKING:
    from manyhead.inference.predictor import Model
    from manyhead.recipe.schema import Recipe, Task

_RECIPE = "recipe.yaml"
_FREE = ("data_dir", "device", "precision", "threads")
_FREE_IN_TASKS = (
    *("files", "format", "quoting", "charset", "columns", "id", "text", "target", "limit", "max_rejected", "metric"),
)


@dataclass(frozen=True)
class Stored:
    """A run or model on this machine; ``recipe`` is its own with what was set for this command.

    ``precision`` replaces the recipe's, which is for training.
    """

    folder: Path
    recipe: "Recipe"
    plugins: tuple[str, ...]
    precision: str | None = None

    def task(self, name: str) -> "Task":
        """A task of the model. Raises `UsageError` for another name."""
        if name not in self.recipe.tasks:
            raise UsageError(f"{self.folder}: no task '{name}'; expected one of {', '.join(self.recipe.tasks)}")
        return self.recipe.tasks[name]

    def load(self) -> "Model":
        """The model itself."""
        from manyhead.inference.predictor import Model

        recipe = self.recipe
        return Model.load(
            self.folder,
            device=recipe.device,
            precision=self.precision or recipe.precision,
            threads=recipe.threads,
            plugins=self.plugins,
        )


def find_model(
    run_or_model: str,
    *,
    plugins: Sequence[str] = (),
    overrides: Sequence[str] = (),
    data_dir: Path | None = None,
    precision: str | None = None,
) -> Stored:
    """The folder that ``run_or_model`` names (one from the hub is fetched), and its recipe with ``overrides``.

    Raises `CheckpointError` where there is no model, `UsageError` where it needs a plugin that was not allowed, and
    `RecipeError` for overrides that do not fit, or that would change the model.
    """
    from manyhead.recipe.stored import load_stored_recipe

    folder = _folder(run_or_model)
    path = next((p for p in (folder / "model" / _RECIPE, folder / _RECIPE) if p.is_file()), None)
    if path is None:
        what = f"{folder}: no model there"
        raise CheckpointError(f"{what}; expected a run folder, a model folder or the hub id of a model")
    loaded = load_stored_recipe(path, plugins=plugins, overrides=overrides, data_dir=data_dir)
    _check_overrides(overrides)
    return Stored(folder, loaded.recipe, tuple(plugins), precision)


def _folder(run_or_model: str) -> Path:
    path = Path(run_or_model)
    is_path = path.is_absolute() or (path.parent != Path() and path.parent.is_dir())
    if path.exists() or is_path:
        return path
    from manyhead.encoder.source import locate_encoder

    try:
        return locate_encoder(run_or_model, None).folder
    except ManyheadError as error:
        raise CheckpointError(f"{path}: no such folder here; and as the name of a model: {error}") from error


def _check_overrides(overrides: Sequence[str]) -> None:
    """Only what is read and where it runs can be set for a model that exists."""
    from manyhead.recipe.keys import join_key, split_assignment

    problems: list[Problem] = []
    for text in overrides:
        keys, _ = split_assignment(text)
        is_free = keys[0] in _FREE or (keys[0] == "tasks" and keys[2:3] and keys[2] in _FREE_IN_TASKS)
        if not is_free:
            expected = f"{', '.join(_FREE)}, or tasks.TASK. and {', '.join(_FREE_IN_TASKS)}"
            problems.append(
                Problem(
                    "the model is trained: this key changes nothing any more", "--set", None, join_key(keys), expected
                )
            )
    if problems:
        raise RecipeError(problems)
