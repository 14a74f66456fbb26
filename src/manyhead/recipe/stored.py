"""The recipe inside a run or model: a model never chooses the code that runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from manyhead.errors import CheckpointError, UsageError
from manyhead.recipe.layers import Overrides
from manyhead.recipe.load import LoadedRecipe, load_recipe


def load_stored_recipe(
    path: Path, *, plugins: Sequence[str] = (), overrides: Overrides = (), data_dir: Path | None = None
) -> LoadedRecipe:
    """The recipe at ``path``, which came with weights.

    Raises `UsageError` where it needs a plugin that is not in ``plugins``, `CheckpointError` where it cannot be read,
    and `RecipeError` as `load_recipe` does.
    """
    try:
        written: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}; expected the recipe of a run or model") from error
    wanted = cast("dict[str, Any]", written).get("plugins") if isinstance(written, dict) else None
    if not isinstance(wanted, list | None):
        raise CheckpointError(f"{path}: plugins is {wanted!r}; expected a list of modules")
    for name in cast("list[object]", wanted or []):
        if name not in plugins:
            raise UsageError(
                f"{path}: the model needs the plugin {name}; its code only runs where you allow it; "
                f"add --plugin {name}, or plugins=['{name}'], if you trust it"
            )
    return load_recipe(path, overrides=overrides, data_dir=data_dir)
