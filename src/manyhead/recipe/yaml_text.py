"""YAML as recipes have it: read with the line of every key, and written so that it reads back the same.

Plain words follow YAML 1.2, not 1.1: ``1e-5`` is a number; ``yes``, ``no``, ``on`` and ``off`` are text, and so are
dates; ``010`` is ten. Only plain values exist: a tag such as ``!!python/...`` is refused. A key that is written twice
is refused. Anchors, aliases and merge keys (``<<``) work.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml

from manyhead.errors import Problem, RecipeError
from manyhead.recipe.keys import Keys, join_key, key_text

MAX_BYTES = 1 << 20
"""Largest recipe file."""
_MAX_DEPTH = 50
_MAX_VALUES = 100_000
_FLOW_WIDTH = 96

_TAG = "tag:yaml.org,2002:"
_RESOLVERS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "merge": (r"<<", "<"),
}


class _Loader(yaml.CSafeLoader):
    """Reads plain words by the resolvers above alone."""


class _Dumper(yaml.CSafeDumper):
    """Quotes what any reader, of YAML 1.1 or 1.2, would not take for text."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


cast("Any", _Loader).yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _RESOLVERS.items():
    for _class in cast("tuple[Any, Any]", (_Loader, _Dumper)):
        _class.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), list(_first))


@dataclass
class Document:
    """A YAML text as plain values; ``lines`` holds the 1-based line on which each key or list item was written."""

    value: object
    lines: dict[Keys, int]
    problems: list[Problem] = field(default_factory=list[Problem])


def read_document(path: Path) -> Document:
    """Read a YAML file. Raises `RecipeError` for one that cannot be read; keys written twice come as ``problems``."""
    return parse_document(_read_text(path), path)


def parse_document(text: str, path: Path | str | None = None) -> Document:
    """Read YAML text that came from ``path``. Raises and returns what `read_document` does."""
    try:
        _refuse_depth(text, path)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise RecipeError([_yaml_problem(error, text, path)]) from None
    except UnicodeEncodeError:
        raise RecipeError([Problem("holds half of a character pair", path, expected="valid Unicode")]) from None
    reader = _Reader(path)
    value = None if root is None else reader.read(root, (), ())
    return Document(value, reader.lines, list(dict.fromkeys(reader.problems)))


def parse_value(text: str) -> object:
    """A YAML scalar or flow value, such as ``1e-5`` or ``{kind: adam, lr: 1e-5}``. Raises `RecipeError`."""
    document = parse_document(text)
    if document.problems:
        raise RecipeError(document.problems)
    return document.value


class _Root(dict[str, Any]):
    """The outermost mapping, which never stands on one line."""


def dump_document(value: Mapping[str, Any]) -> str:
    """Plain values as YAML, in the order given; short lists and mappings of scalars stay on one line."""
    return yaml.dump(_Root(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Reader:
    """Turns nodes into plain values, noting lines and problems."""

    def __init__(self, path: Path | str | None) -> None:
        self.path = path
        self.lines: dict[Keys, int] = {}
        self.problems: list[Problem] = []
        self._values = 0

    def read(self, node: yaml.Node, keys: Keys, parents: tuple[yaml.Node, ...]) -> object:
        self._values += 1
        self.lines.setdefault(keys, _line(node))
        if any(node is parent for parent in parents):
            self._refuse(node, "an alias names a value that it is itself part of", "write the value out")
        if self._values > _MAX_VALUES or len(parents) > _MAX_DEPTH:
            self._refuse(node, "aliases make this recipe too large", "write the values out")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, keys, (*parents, node))
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            items = cast("list[yaml.Node]", node.value)
            return [self.read(item, (*keys, str(place)), (*parents, node)) for place, item in enumerate(items)]
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> object:
        tag = str(node.tag)
        read = _SCALARS.get(tag.removeprefix(_TAG)) if isinstance(node, yaml.ScalarNode) else None
        if read is None:
            self._refuse(node, f"the tag {tag.replace(_TAG, '!!')} is not allowed", "leave the tag out")
        try:
            return read(str(node.value))
        except ValueError:
            name = tag.removeprefix(_TAG)
            self._refuse(node, f"{str(node.value)[:40]!r} cannot be read as {name}", "leave the tag out")

    def _mapping(self, node: yaml.MappingNode, keys: Keys, parents: tuple[yaml.Node, ...]) -> dict[Any, object]:
        mapping: dict[Any, object] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            if key_node.tag == _TAG + "merge":
                merged += self._merged(value_node)
                continue
            key = self._key(key_node)
            below = (*keys, key_text(key))
            if key in mapping:
                first = self.lines[next((*keys, key_text(known)) for known in mapping if known == key)]
                problem = f"the key {join_key(below[-1:])} is there already, on line {first}"
                place = (self.path, _line(key_node), join_key(below))
                self.problems.append(Problem(problem, *place, do="remove one of the two"))
                continue
            self.lines.setdefault(below, _line(key_node))
            mapping[key] = self.read(value_node, below, parents)
        for base in merged:
            for key, value in cast("dict[Any, object]", self.read(base, keys, parents)).items():
                mapping.setdefault(key, value)
        return mapping

    def _merged(self, node: yaml.Node) -> list[yaml.Node]:
        bases = cast("list[yaml.Node]", node.value) if isinstance(node, yaml.SequenceNode) else [node]
        if not all(isinstance(base, yaml.MappingNode) for base in bases):
            self._refuse(node, "'<<' takes in something that is no mapping", "name mappings after it")
        return bases

    def _key(self, node: yaml.Node) -> object:
        key = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if key is None:
            self._refuse(node, "a key is null, a list or a mapping", "give it a name, in quotes if need be")
        return key

    def _refuse(self, node: yaml.Node, problem: str, do: str) -> NoReturn:
        raise RecipeError([*self.problems, Problem(problem, self.path, _line(node), do=do)])


def _int(text: str) -> int:
    return int(text, 8) if text.startswith("0o") else int(text, 16) if text.startswith("0x") else int(text)


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_SCALARS: dict[str, Callable[[str], object]] = {
    "str": str,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "null": lambda _: None,
    "merge": str,
}


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise RecipeError([Problem("there is no such file", path)]) from None
    except IsADirectoryError:
        raise RecipeError([Problem("is a folder", path, expected="a recipe file")]) from None
    except (OSError, ValueError) as error:
        raise RecipeError([Problem(f"cannot be read: {getattr(error, 'strerror', None) or error}", path)]) from None
    if len(data) > MAX_BYTES:
        raise RecipeError([Problem("is too large for a recipe", path, expected=f"at most {MAX_BYTES >> 20} MiB")])
    if b"\0" in data:
        raise RecipeError([Problem("is a binary file", path, expected="a recipe: YAML text in UTF-8")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem("is not in UTF-8", path, line, expected="YAML text in UTF-8", do="save the file as UTF-8")
        raise RecipeError([problem]) from None


def _refuse_depth(text: str, path: Path | str | None) -> None:
    """The parser's own nesting is not bounded: it would overflow the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else None
            raise RecipeError([Problem(f"is nested more than {_MAX_DEPTH} deep", path, line)])


def _yaml_problem(error: yaml.YAMLError, text: str, path: Path | str | None) -> Problem:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if mark is None:
        return Problem("holds a control character", path, expected="YAML text", do="remove the character")
    line = mark.line + 1
    lines = text.split("\n")
    if "\t" in (lines[line - 1] if line <= len(lines) else "")[: mark.column + 1]:
        return Problem("a tab stands where YAML wants spaces", path, line, do="indent with spaces")
    if getattr(error, "context", None) == "expected a single document in the stream":
        return Problem("holds several documents", path, line, expected="one recipe a file", do="remove this '---'")
    do = "see this line and the ones before it; text that holds ': ' or ' #' or begins with a sign wants quotes"
    return Problem(f"is not YAML: {getattr(error, 'problem', error)}", path, line, do=do)


def _flow_if_short(node: yaml.CollectionNode) -> yaml.Node:
    """Lists and mappings of scalars on one line where they fit."""
    children: list[yaml.Node] = []
    for item in cast("list[Any]", node.value):
        children += item if isinstance(item, tuple) else [item]
    scalars = all(isinstance(child, yaml.ScalarNode) for child in children)
    node.flow_style = scalars and sum(len(str(child.value)) + 4 for child in children) <= _FLOW_WIDTH
    return node


def _represent_mapping(dumper: yaml.CSafeDumper, value: Mapping[Any, Any]) -> yaml.Node:
    return _flow_if_short(dumper.represent_mapping(_TAG + "map", value))


def _represent_sequence(dumper: yaml.CSafeDumper, value: list[Any] | tuple[Any, ...]) -> yaml.Node:
    return _flow_if_short(dumper.represent_sequence(_TAG + "seq", value))


def _represent_root(dumper: yaml.CSafeDumper, value: _Root) -> yaml.Node:
    return dumper.represent_mapping(_TAG + "map", value, flow_style=False)


_Dumper.add_representer(_Root, _represent_root)
_Dumper.add_representer(dict, _represent_mapping)
_Dumper.add_representer(list, _represent_sequence)
_Dumper.add_representer(tuple, _represent_sequence)
