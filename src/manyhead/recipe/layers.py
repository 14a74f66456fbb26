"""A recipe's file, the ones it extends, and what is set on top: one tree of values, each with its place.

A recipe that has ``extends`` holds nothing else but ``manyhead``, ``name`` and ``set``. Its base is a path relative to
its own file, or the name of a shipped recipe.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from manyhead.errors import Problem, RecipeError
from manyhead.recipe.faults import Fault, shown, suggestion
from manyhead.recipe.keys import Keys, join_key, key_text, split_assignment, split_key
from manyhead.recipe.names import shipped_paths
from manyhead.recipe.overrides import Place, Tree
from manyhead.recipe.schema import FORMAT
from manyhead.recipe.yaml_text import Document, parse_value, read_document

Overrides = Sequence[str] | Mapping[str, object]

_EXTENDING = ("manyhead", "name", "extends", "set")


def find_recipe(source: str | Path, folder: Path) -> Path:
    """The file that ``source`` names: a path relative to ``folder``, or the name of a shipped recipe.

    A file wins over a shipped recipe of the same name only if ``source`` ends in .yaml or .yml or holds a slash.
    Raises `RecipeError` if there is neither.
    """
    path, shipped = folder / source, shipped_paths()
    looks_like_path = isinstance(source, Path) or path.suffix in (".yaml", ".yml") or "/" in source or "\\" in source
    if str(source) in shipped and not (looks_like_path and _is_there(path)):
        return shipped[str(source)]
    if _is_there(path) and path.is_dir():
        do = "give the recipe.yaml in it" if _is_there(path / "recipe.yaml") else None
        raise RecipeError([Problem("is a folder", path, expected="a recipe file", do=do)])
    if _is_there(path):
        return path
    problem = f"{shown(str(source))} is neither a file nor a shipped recipe"
    near = suggestion(source, shipped)
    raise RecipeError([Problem(problem, expected=f"a path or one of {', '.join(shipped)}", do=near)])


def read_layers(source: Path | Mapping[str, Any], problems: list[Problem]) -> Tree:
    """The values of a recipe file or mapping, with the recipes it extends resolved.

    Mistakes that let reading go on are added to ``problems``. Raises `RecipeError` for those that do not.
    """
    if isinstance(source, Path):
        return _read(source, (), problems)
    document = Document(plain(source), {})
    return _resolved(document, None, (), problems)


def set_all(tree: Tree, overrides: Overrides, problems: list[Problem]) -> None:
    """Set ``KEY=VALUE`` texts, or keys of a mapping, in the order given; add what is wrong to ``problems``."""
    for text in [overrides] if isinstance(overrides, str) else overrides:
        try:
            keys, value = _assignment(text, overrides)
        except ValueError as error:
            problems.append(Problem(str(error), "--set", expected="KEY=VALUE, such as stages.0.epochs=1"))
        except RecipeError as error:
            problems += error.problems
        else:
            set_key(tree, keys, value, Place(f"--set {join_key(keys)}"), problems)


def set_key(tree: Tree, keys: Keys, value: object, place: Place, problems: list[Problem]) -> None:
    """Set one key from outside any file; add what is wrong to ``problems``."""
    fault = tree.set(keys, value, {(): place})
    if fault is not None:
        problems.append(at_place(fault, place))


def at_place(fault: Fault, place: Place) -> Problem:
    """The problem of a fault whose place is known. What it quotes of the recipe is made to stay on one line."""
    problem, expected, do = (text and _printable(text) for text in (fault.problem, fault.expected, fault.do))
    return Problem(problem or "", place.path, place.line, join_key(fault.keys) or None, expected, do)


def plain(value: object, keys: Keys = ()) -> Any:
    """A copy of Python values as YAML has them: lists for tuples, text for paths, mappings for models.

    Raises `RecipeError` for text that no file can hold; ``keys`` are those that lead to the value.
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True)
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        for key, _ in items:
            _text(str(key), (*keys, ascii(key)))
        return {key: plain(item, (*keys, key_text(key))) for key, item in items}
    if isinstance(value, list | tuple):
        return [plain(item, (*keys, str(place))) for place, item in enumerate(cast("Sequence[object]", value))]
    return _text(str(value), keys) if isinstance(value, str | Path) else value


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _text(text: str, keys: Keys) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RecipeError([Problem(f"{text!r} is not valid Unicode", key=join_key(keys) or None)]) from None
    return text


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name, a zero byte in it, no right to look
        return False


def _assignment(text: str, overrides: Overrides) -> tuple[Keys, object]:
    if isinstance(overrides, Mapping):
        return split_key(text), plain(overrides[text])
    keys, value = split_assignment(text)
    if value is None:
        raise ValueError(f"{shown(text)} sets nothing")
    try:
        return keys, parse_value(value)
    except RecipeError as error:
        place, do = f"--set {join_key(keys)}", "put the value in quotes"
        raise RecipeError([Problem(each.problem, place, do=do) for each in error.problems]) from None


def _read(path: Path, extending: tuple[Path, ...], problems: list[Problem]) -> Tree:
    document = read_document(path)
    problems += document.problems
    return _resolved(document, path, (*extending, path.resolve()), problems)


def _resolved(document: Document, path: Path | None, chain: tuple[Path, ...], problems: list[Problem]) -> Tree:
    value = _mapping(document.value, path)
    places = {keys: Place(path, line) for keys, line in document.lines.items()}
    tree = Tree(value, places)
    _check_format(tree)
    if "extends" not in value:
        if "set" in value:
            problems.append(Problem("set is for recipes that extend another", *tree.place(("set",)), "set"))
            value.pop("set")
        return tree
    return _extended(tree, path, chain, problems)


def _extended(tree: Tree, path: Path | None, chain: tuple[Path, ...], problems: list[Problem]) -> Tree:
    value = tree.value
    for key in map(key_text, value):
        if key not in _EXTENDING:
            do = f"write it under set: {{{key}: ...}}"
            problem = "cannot stand beside extends"
            problems.append(Problem(problem, *tree.place((key,)), key, f"one of {', '.join(_EXTENDING)}", do))
    base = _base(tree, path, chain, problems)
    for key in ("manyhead", "name"):
        base.value.pop(key, None)
        base.places.pop((key,), None)
        if key in value:
            base.value = {key: value[key], **base.value}
            base.places[(key,)] = tree.place((key,))
    base.places[()] = tree.place(())
    given: object = value.get("set") or {}
    if not isinstance(given, Mapping):
        expected = "a mapping of dotted keys, such as {stages.0.epochs: 1}"
        problems.append(Problem("is no mapping", *tree.place(("set",)), "set", expected))
        return base
    for key, item in cast("Mapping[object, object]", given).items():
        _set(base, key_text(key), item, tree, problems)
    return base


def _set(base: Tree, key: str, value: object, tree: Tree, problems: list[Problem]) -> None:
    written = ("set", key)
    places = {keys[2:]: place for keys, place in tree.places.items() if keys[:2] == written}
    try:
        keys = split_key(key)
    except ValueError as error:
        problems.append(Problem(str(error), *tree.place(written), expected="a dotted key, such as stages.0.epochs"))
        return
    fault = base.set(keys, value, {(): tree.place(written)} | places)
    if fault is not None:
        problems.append(at_place(fault, tree.place(written)))


def _base(tree: Tree, path: Path | None, chain: tuple[Path, ...], problems: list[Problem]) -> Tree:
    place = tree.place(("extends",))
    name = tree.value["extends"]
    if not isinstance(name, str) or not name:
        expected = "a path or the name of a shipped recipe"
        raise RecipeError([*problems, Problem("is no name", *place, "extends", expected)])
    try:
        found = find_recipe(name, Path.cwd() if path is None else path.parent)
    except RecipeError as error:
        here = [Problem(each.problem, *place, "extends", each.expected, each.do) for each in error.problems]
        raise RecipeError([*problems, *here]) from None
    if found.resolve() in chain:
        names = " > ".join(each.name for each in (*chain[chain.index(found.resolve()) :], found))
        raise RecipeError([*problems, Problem(f"recipes extend each other: {names}", *place, "extends")])
    return _read(found, chain, problems)


def _mapping(value: object, path: Path | None) -> dict[str, Any]:
    expected, do = "a mapping that begins with manyhead: 1", "see a recipe with: manyhead recipes show template"
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    problem = "is empty" if value is None else "holds a list" if isinstance(value, list) else "holds no mapping"
    raise RecipeError([Problem(problem, path, expected=expected, do=do)])


def _check_format(tree: Tree) -> None:
    """A recipe of another format is not judged further: its keys may mean something else."""
    given = tree.value.get("manyhead", FORMAT)
    if type(given) is int and given == FORMAT:
        return
    problem = f"the recipe has format {given!r}, and this package reads format {FORMAT}"
    do = "use the version of manyhead that reads it" if type(given) is int else f"write manyhead: {FORMAT}"
    raise RecipeError([Problem(problem, *tree.place(("manyhead",)), "manyhead", do=do)])
