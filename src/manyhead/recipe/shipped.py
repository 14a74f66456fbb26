"""The recipes that ship with the package: what there is, and the text of one.

A shipped recipe begins with comments: its title on the first line; then, where they apply, ``# study: s1`` and
``# published: {sst: .518}``, the figures printed for it, or ``# published_grid: [{sst: .253}, ...]``, those of each
point of its grid.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from manyhead.errors import Problem, RecipeError
from manyhead.recipe.faults import suggestion
from manyhead.recipe.layers import read_layers
from manyhead.recipe.load import load_recipe, recipe_yaml
from manyhead.recipe.names import shipped_paths
from manyhead.recipe.yaml_text import dump_document, parse_value

_BITS = re.compile(r"^# (study|published|published_grid|published_parameters): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class ShippedRecipe:
    """What a recipe's file says of itself. ``study`` is ``s1``..``s4`` or None.

    ``published`` maps score to printed figure; ``published_grid`` has such a mapping for each point of its grid, the
    last key of the grid changing fastest. ``published_parameters`` is the printed number of parameters.
    """

    name: str
    study: str | None
    title: str
    published: Mapping[str, float]
    published_grid: Sequence[Mapping[str, float]]
    published_parameters: float | None
    path: Path


def shipped_recipes() -> list[ShippedRecipe]:
    """All shipped recipes, by name."""
    return [described(name, path) for name, path in shipped_paths().items()]


def shipped_text(name: str) -> str:
    """A shipped recipe as complete, valid YAML that reads the same wherever it is saved.

    A recipe that extends another comes resolved, with its comments before it. Raises `RecipeError` for a name that no
    shipped recipe has.
    """
    paths = shipped_paths()
    if name not in paths:
        problem = f"there is no shipped recipe '{name}'"
        raise RecipeError([Problem(problem, expected=f"one of {', '.join(paths)}", do=suggestion(name, paths))])
    text = paths[name].read_text("utf-8")
    data_dir = read_layers(paths[name], []).places.get(("data_dir",))
    recipe = load_recipe(paths[name]).recipe
    if re.search(r"^extends:", text, re.MULTILINE):
        return _header(text) + recipe_yaml(recipe if data_dir else recipe.with_changes(data_dir="."))
    absolute = dump_document({"data_dir": recipe.data_dir}).strip()
    return re.sub(r"^data_dir: (?!\.\s).*$", lambda _: absolute, text, flags=re.MULTILINE)


def described(name: str, path: Path) -> ShippedRecipe:
    """What the comments say that the file at ``path`` begins with."""
    header = _header(path.read_text("utf-8"))
    bits = dict(_BITS.findall(header))
    title = header.partition("\n")[0].removeprefix("#").strip()
    published = _figures(parse_value(bits.get("published", "{}")))
    points = cast("list[object]", parse_value(bits.get("published_grid", "[]")))
    count = bits.get("published_parameters")
    grid = [_figures(point) for point in points]
    return ShippedRecipe(name, bits.get("study"), title, published, grid, None if count is None else float(count), path)


def _figures(given: object) -> dict[str, float]:
    return {key: float(value) for key, value in cast("dict[str, Any]", given).items()}


def _header(text: str) -> str:
    """The comment lines that a file begins with."""
    lines = text.splitlines(keepends=True)
    length = next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[:length])
