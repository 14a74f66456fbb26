"""Finding a model that was trained, and reading its recipe before anything heavy is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from manyhead.errors import CheckpointError, ManyheadError, UsageError

if TYPE_CHECKING:
    from manyhead.recipe.load import LoadedRecipe

_RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class StoredRecipe:
    """A run or model on this machine, and its recipe."""

    folder: Path
    loaded: "LoadedRecipe"


def find_model(
    run_or_model: str, plugins: Sequence[str], *, overrides: Sequence[str] = (), data_dir: Path | None = None
) -> StoredRecipe:
    """The folder that ``run_or_model`` names (one from the hub is fetched), and its recipe with ``overrides``.

    Raises `CheckpointError` where there is no model, `UsageError` where it needs a plugin that was not allowed, and
    `RecipeError` for overrides that do not fit.
    """
    from manyhead.recipe.load import load_recipe

    folder = _folder(run_or_model)
    path = next((p for p in (folder / "model" / _RECIPE, folder / _RECIPE) if p.is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder}: no model there; expected a run folder, a model folder or the hub id of a model")
    _check_plugins(path, plugins)
    return StoredRecipe(folder, load_recipe(path, overrides=overrides, data_dir=data_dir))


def _folder(run_or_model: str) -> Path:
    path = Path(run_or_model)
    if path.exists() or path.is_absolute() or path.parent.is_dir() and path.parent != Path():
        return path
    from manyhead.encoder.source import locate_encoder

    try:
        return locate_encoder(run_or_model, None, base=None).folder
    except ManyheadError as error:
        raise CheckpointError(f"{run_or_model}: there is no such folder here; as the name of a model: {error}") from error


def _check_plugins(path: Path, allowed: Sequence[str]) -> None:
    """A model never chooses the code that runs."""
    import yaml

    try:
        recipe: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    wanted = cast("dict[str, Any]", recipe).get("plugins") if isinstance(recipe, dict) else None
    for name in wanted or []:
        if name not in allowed:
            raise UsageError(
                f"{path}: the model needs the plugin {name}; its code only runs if you allow it; "
                f"add --plugin {name} if you trust it"
            )
