"""From a study to its runs: recipes found, grids opened, rows joined, and everything wrong with them told at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from manyhead.errors import DataError, Problem, RecipeError
from manyhead.recipe.keys import Keys, join_key, split_key
from manyhead.recipe.layers import find_recipe
from manyhead.recipe.load import LoadedRecipe
from manyhead.recipe.overrides import Place
from manyhead.recipe.points import grid_points
from manyhead.recipe.shipped import described
from manyhead.studies.load import LoadedStudy
from manyhead.studies.planner import Draft, Planner, Setting
from manyhead.studies.runs import Member, Plan, PlannedRow, PlannedRun
from manyhead.studies.schema import Figures, Row

_NO_GRID: Setting = (("grid",), {}, Place(None))


@dataclass(frozen=True)
class _Part:
    """A `Member` before its runs are made."""

    task: str | None
    recipe: str
    drafts: Sequence[Draft]


@dataclass(frozen=True)
class _DraftRow:
    name: str
    parts: Sequence[_Part]
    published: Figures


def plan_study(planner: Planner, loaded: LoadedStudy) -> Plan:
    """The rows and runs of a study.

    Raises `RecipeError` with everything wrong with any of its recipes, and `DataError` with everything that keeps
    their data from being read.
    """
    problems: list[Problem] = []
    missing: list[Problem] = []
    rows: list[_DraftRow] = []
    for number, row in enumerate(loaded.study.rows):
        try:
            rows += _rows(planner, loaded, row, number)
        except RecipeError as error:
            problems += error.problems
        except DataError as error:
            missing += error.problems
    if not problems and not missing:
        problems += _name_problems(loaded, rows)
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    if missing:
        raise DataError(list(dict.fromkeys(missing)))
    runs = iter(planner.runs([draft for row in rows for part in row.parts for draft in part.drafts]))
    return Plan(tuple(_planned(row, runs) for row in rows))


def _planned(row: _DraftRow, runs: Iterator[PlannedRun]) -> PlannedRow:
    members = [Member(part.task, part.recipe, tuple(next(runs) for _ in part.drafts)) for part in row.parts]
    return PlannedRow(row.name, tuple(members), row.published)


def recipe_file(loaded: LoadedStudy, name: str, at: Keys) -> Path:
    """The recipe that the study names at the key ``at``."""
    try:
        return find_recipe(name, loaded.folder)
    except RecipeError as error:
        place, key = loaded.place(*at), join_key(at)
        raise RecipeError([Problem(p.problem, *place, key, p.expected, p.do) for p in error.problems]) from None


def row_settings(loaded: LoadedStudy, row: Row, number: int) -> list[Setting]:
    """What a row sets of its recipes. Raises `RecipeError` for keys that cannot be read."""
    settings: list[Setting] = []
    problems: list[Problem] = []
    for key, value in row.settings.items():
        place = loaded.place("rows", str(number), "set", key)
        try:
            settings.append((split_key(key), value, place))
        except ValueError as error:
            expected = "a dotted key, such as stages.0.epochs"
            problems.append(Problem(str(error), *place, expected=expected))
    if problems:
        raise RecipeError(problems)
    return settings


def _rows(planner: Planner, loaded: LoadedStudy, row: Row, number: int) -> Iterator[_DraftRow]:
    settings = row_settings(loaded, row, number)
    if row.row is not None:
        yield _joined_row(planner, loaded, row, number, settings)
        return
    assert row.recipe is not None
    at = ("rows", str(number), "recipe")
    path = recipe_file(loaded, row.recipe, at)
    found = planner.load(path, settings)
    if found.recipe.search is not None:
        do = "leave it out, and run it as a study of its own: manyhead study RECIPE"
        raise RecipeError([Problem(f"'{row.recipe}' has a search", *loaded.place(*at), join_key(at), do=do)])
    header = described(row.recipe, path)
    name = row.name or _recipe_name(row.recipe, found)
    if not found.recipe.grid:
        yield _one_row(planner, found, name, row.published or dict(header.published), settings)
        return
    points = _points(found)
    figures = header.published_grid
    if row.published is not None or (figures and len(figures) != len(points)):
        has = "one for each point of the grid" if row.published is None else "the recipe's header says published_grid"
        problem = f"{len(figures)} published figures for {len(points)} points" if row.published is None else "is a grid"
        raise RecipeError([Problem(problem, *loaded.place(*at), join_key(at), has)])
    for place, (label, point) in enumerate(points):
        chosen = [*settings, _NO_GRID, *point]
        published = dict(figures[place]) if figures else {}
        yield _one_row(planner, planner.load(path, chosen), f"{name} {label}", published, chosen)


def _one_row(
    planner: Planner, found: LoadedRecipe, name: str, published: Figures, settings: Sequence[Setting]
) -> _DraftRow:
    return _DraftRow(name, [_Part(None, found.recipe.name, planner.drafts(found, name, settings))], published)


def _joined_row(planner: Planner, loaded: LoadedStudy, row: Row, number: int, settings: Sequence[Setting]) -> _DraftRow:
    assert row.row is not None
    assert row.name is not None
    parts: list[_Part] = []
    problems: list[Problem] = []
    for task, recipe in row.row.items():
        at = ("rows", str(number), "row", task)
        try:
            found = planner.load(recipe_file(loaded, recipe, at), settings)
        except RecipeError as error:
            problems += error.problems
            continue
        problem = None
        if found.recipe.grid or found.recipe.search is not None:
            problem = f"'{recipe}' stands for several runs"
        elif task not in found.recipe.tasks or found.recipe.tasks[task].files.dev is None:
            problem = f"'{recipe}' does not score a task '{task}'"
        if problem is None:
            parts.append(_Part(task, recipe, planner.drafts(found, _recipe_name(recipe, found), settings)))
        else:
            problems.append(Problem(problem, *loaded.place(*at), join_key(at)))
    if problems:
        raise RecipeError(problems)
    return _DraftRow(row.name, parts, row.published or {})


def _points(found: LoadedRecipe) -> list[tuple[str, list[Setting]]]:
    """Every combination of a grid's values with its name, the last key changing fastest."""
    keys = {key: split_key(key) for key in found.recipe.grid}
    places = {key: Place(*found.place(join_key(("grid", key)))) for key in keys}
    names = short_names(list(keys.values()))
    return [
        (
            ", ".join(f"{names[keys[key]]}={value_name(value)}" for key, value in point.items()),
            [(keys[key], value, places[key]) for key, value in point.items()],
        )
        for point in grid_points(found.recipe)
    ]


def short_names(keys: Sequence[Keys]) -> dict[Keys, str]:
    """Each key's last segment, or as many as tell it from the others."""
    names: dict[Keys, str] = {}
    for key in keys:
        length = next((n for n in range(1, len(key)) if sum(other[-n:] == key[-n:] for other in keys) == 1), len(key))
        names[key] = join_key(key[-length:])
    return names


def value_name(value: object, digits: int = 6) -> str:
    """A value in the name of a row; floats with so many ``digits``."""
    if isinstance(value, Mapping):
        given = dict(cast("Mapping[str, Any]", value))
        kind = given.pop("kind", None)
        rest = [f"{key}={value_name(item, digits)}" for key, item in given.items() if item not in ({}, [])]
        return " ".join([*([] if kind is None else [str(kind)]), *rest])
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _recipe_name(name: str, found: LoadedRecipe) -> str:
    """How a row calls its recipe: as the study does, or by the recipe's own name where that is a path."""
    return found.recipe.name if name.endswith((".yaml", ".yml")) else name


def _name_problems(loaded: LoadedStudy, rows: Sequence[_DraftRow]) -> list[Problem]:
    names = [row.name for row in rows]
    place = loaded.place("rows")
    twice = {name for name in names if names.count(name) > 1}
    problems = [Problem(f"two rows are named '{name}'", *place, "rows", do="give one a name") for name in sorted(twice)]
    baseline = loaded.study.baseline
    if baseline is not None and baseline not in names:
        problem, expected = f"there is no row '{baseline}'", f"one of {', '.join(names)}"
        problems.append(Problem(problem, *loaded.place("baseline"), "baseline", expected))
    return problems
