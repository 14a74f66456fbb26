"""Loading a study: a study's file, or a recipe as a study of its own."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from manyhead.errors import Problem, RecipeError
from manyhead.recipe.explain import Details, explain
from manyhead.recipe.faults import shown, suggestion
from manyhead.recipe.keys import Keys
from manyhead.recipe.layers import at_place, find_recipe
from manyhead.recipe.names import shipped_paths, shipped_studies
from manyhead.recipe.overrides import Place
from manyhead.recipe.shape import Spot
from manyhead.recipe.shipped import described
from manyhead.recipe.yaml_text import Document, read_document
from manyhead.studies.schema import FORMAT, Row, Study


@dataclass(frozen=True)
class LoadedStudy:
    """A study, its file, and the line of each key. ``is_recipe``: the file is its only row's recipe.

    Paths of recipes count from ``folder``.
    """

    study: Study
    path: Path
    folder: Path
    lines: Mapping[Keys, int]
    is_recipe: bool = False

    def place(self, *keys: str) -> Place:
        """Where a key was written, or the nearest one above it."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return Place(self.path, self.lines.get(keys))


def load_study(source: str | Path) -> LoadedStudy:
    """The study that ``source`` names: a shipped study, a study's file, or a recipe, whose only row it then is.

    Raises `RecipeError` with everything wrong with the study's file; its recipes are not read.
    """
    path = _find(source)
    document = read_document(path)
    if isinstance(document.value, dict) and "study" in document.value:
        return _read(document, path)
    study = Study(study=1, name=slug(path.stem), title=described("", path).title, rows=[Row(recipe=str(path))])
    return LoadedStudy(study, path, Path(), {}, is_recipe=True)


def slug(text: str) -> str:
    """``text`` as a file's name may have it."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._")[:60] or "study"


def _find(source: str | Path) -> Path:
    studies = shipped_studies()
    if str(source) in studies:
        return studies[str(source)]
    try:
        return find_recipe(source, Path())
    except RecipeError as error:
        names = [*studies, *shipped_paths()]
        if Path(source).exists():
            raise error
        problem = f"{shown(str(source))} is neither a file nor a shipped study or recipe"
        expected = f"a path, one of the studies {', '.join(studies)}, or a recipe (manyhead recipes ls)"
        raise RecipeError([Problem(problem, expected=expected, do=suggestion(source, names))]) from None


def _read(document: Document, path: Path) -> LoadedStudy:
    value = cast("dict[str, Any]", document.value)
    lines = document.lines

    def place(keys: Keys) -> Place:
        while keys and keys not in lines:
            keys = keys[:-1]
        return Place(path, lines.get(keys))

    given = value["study"]
    if type(given) is not int or given != FORMAT:
        problem = f"the study has format {given!r}, and this package reads format {FORMAT}"
        do = "use the version of manyhead that reads it" if type(given) is int else f"write study: {FORMAT}"
        raise RecipeError([Problem(problem, *place(("study",)), "study", do=do)])
    problems = list(document.problems)
    try:
        study = Study.model_validate(value)
    except ValidationError as error:
        faults = explain(cast("list[Details]", error.errors()), value, {}, Spot(Study))
        problems += [at_place(fault, place(fault.keys)) for fault in faults]
        raise RecipeError(sorted(problems, key=lambda problem: problem.line or 0)) from None
    for number, row in enumerate(study.rows):
        problems += _row_problems(row, str(number), place)
    if problems:
        raise RecipeError(problems)
    return LoadedStudy(study, path, path.parent, lines)


def _row_problems(row: Row, number: str, place: Callable[[Keys], Place]) -> list[Problem]:
    at = ("rows", number)
    problems: list[Problem] = []
    if (row.recipe is None) == (row.row is None):
        problem = "has neither recipe nor row" if row.recipe is None else "has both recipe and row"
        expected = "a recipe's name, {recipe: NAME, ...} or {row: {TASK: NAME, ...}, ...}"
        problems.append(Problem(problem, *place(at), ".".join(at), expected))
    if row.row is not None and row.name is None:
        problem, do = "has several recipes and no name", "add name"
        problems.append(Problem(problem, *place(at), ".".join(at), do=do))
    if row.row is not None and not row.row:
        problems.append(Problem("names no task", *place((*at, "row")), ".".join((*at, "row")), "task: recipe"))
    return problems
