"""Loading a recipe: everything wrong with it at once, each mistake with its file and line.

`load_recipe` reads a file (or the name of a shipped recipe, or a mapping), resolves what it extends, sets the
overrides, and returns the recipe with every key filled in, or raises one `RecipeError` that lists all mistakes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from manyhead.errors import Problem, RecipeError
from manyhead.recipe.keys import Keys, split_key
from manyhead.recipe.layers import Overrides, at_place, find_recipe, plain, read_layers, set_all, set_key
from manyhead.recipe.names import FOLDER
from manyhead.recipe.overrides import Place, Tree
from manyhead.recipe.schema import EMBEDDED, Encoder, Recipe, Tables
from manyhead.recipe.tables import TABLES, tables_with
from manyhead.recipe.validate import validated
from manyhead.recipe.yaml_text import dump_document


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe, the tables it was checked with (those of its plugins included), and where its keys were written.

    ``path`` is None for a recipe that was given as a mapping.
    """

    recipe: Recipe
    tables: Tables
    path: Path | None
    _tree: Tree

    def place(self, key: str) -> tuple[Path | str | None, int | None]:
        """File (or ``--set KEY``) and line of a dotted key; of the nearest key above it where it was omitted.

        Raises ValueError for text that is no dotted key.
        """
        return self._tree.place(split_key(key))


def load_recipe(
    source: str | Path | Mapping[str, Any],
    *,
    overrides: Overrides = (),
    data_dir: str | Path | None = None,
    seed: int | None = None,
    settings: Sequence[tuple[Keys, object, Place]] = (),
) -> LoadedRecipe:
    """Load, resolve and check a recipe.

    Args:
        source: A file, the name of a shipped recipe, or a recipe's values.
        overrides: ``KEY=VALUE`` texts with dotted keys and YAML values, or a mapping of dotted keys to values.
        data_dir: Replaces the recipe's ``data_dir``; relative to the current folder.
        seed: Replaces the recipe's ``seed``.
        settings: Keys that a study's row sets on top, each with its value and where that is written.

    Returns:
        The recipe. Its ``data_dir`` is absolute: relative ones count from the file that wrote them. Where none is
        written it is the recipe's folder; for shipped recipes and mappings, the current folder.

    Raises:
        RecipeError: Everything wrong with the recipe.
    """
    problems: list[Problem] = []
    path = None if isinstance(source, Mapping) else find_recipe(source, Path())
    tree = read_layers(cast("Mapping[str, Any]", source) if path is None else path, problems)
    set_all(tree, overrides, problems)
    for keys, value, place in settings:
        set_key(tree, keys, value, place, problems)
    if seed is not None:
        set_key(tree, ("seed",), seed, Place("--seed"), problems)
    if data_dir is not None:
        set_key(tree, ("data_dir",), str(data_dir), Place("--data-dir"), problems)
    tables = _tables(tree, problems)
    recipe, faults = validated(tree.value, tables)
    problems += [at_place(fault, tree.place(fault.keys)) for fault in faults]
    if problems or recipe is None:
        raise RecipeError(_in_order(problems))
    recipe = recipe.with_changes(data_dir=str(_data_folder(recipe, tree, path)), encoder=_encoder(recipe, tree))
    return LoadedRecipe(recipe, tables, path, tree)


def recipe_yaml(recipe: Recipe) -> str:
    """The whole recipe as YAML, in the order of the schema; `load_recipe` reads the same recipe back."""
    return dump_document(plain(recipe))


def _tables(tree: Tree, problems: list[Problem]) -> Tables:
    plugins = tree.value.get("plugins")
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in cast("list[object]", plugins)):
        return TABLES
    try:
        return tables_with(cast("list[str]", plugins))
    except RecipeError as error:
        place = tree.place(("plugins",))
        problems += [replace(each, path=place.path, line=place.line) for each in error.problems]
        return TABLES


def _in_order(problems: list[Problem]) -> list[Problem]:
    """Each problem once; those of a file together, by line."""
    paths = list(dict.fromkeys(problem.path for problem in problems))
    return sorted(dict.fromkeys(problems), key=lambda problem: (paths.index(problem.path), problem.line or 0))


def _encoder(recipe: Recipe, tree: Tree) -> Encoder:
    """The encoder with a checkpoint folder in full: relative ones count from the file that wrote them, or from here."""
    encoder = recipe.encoder
    written = tree.place(("encoder", "checkpoint")).path
    bases = [written.parent, Path()] if isinstance(written, Path) else [Path()]
    if not encoder.checkpoint.strip() or encoder.checkpoint == EMBEDDED:
        return encoder
    try:
        folder = next((base / encoder.checkpoint for base in bases if (base / encoder.checkpoint).is_dir()), None)
    except OSError:  # longer than a path can be; what is made of it is said where the encoder is looked for
        return encoder
    return encoder if folder is None else encoder.model_copy(update={"checkpoint": str(folder.resolve())})


def _data_folder(recipe: Recipe, tree: Tree, path: Path | None) -> Path:
    written = tree.places.get(("data_dir",))
    if written is not None and isinstance(written.path, Path):
        folder = written.path.parent
    elif written is not None or path is None or path.resolve().is_relative_to(FOLDER.resolve()):
        folder = Path()
    else:
        folder = path.parent
    data_dir = (folder / Path(recipe.data_dir).expanduser()).absolute()
    return data_dir.resolve() if ".." in data_dir.parts else data_dir
