"""Dotted keys, as ``--set``, ``set:`` and error messages write them: ``stages.0.optimizer.lr``.

Segments are separated by dots; items of lists are numbered from 0. A segment that holds a dot, a quote or ``=`` is
written in quotes: ``tasks.sst.labels."0.5"``. Inside a program a key is the tuple of its segments, all of them text.
"""

import json
import re
from collections.abc import Mapping
from typing import cast

from manyhead.recipe.schema import Cell, cell_text

Keys = tuple[str, ...]

_SEGMENT = r'(?:"(?:[^"\\]|\\.)*"|\'[^\']*\'|[^."\'=\s](?:[^.=]*[^.=\s])?)'
_KEY = re.compile(rf"\s*({_SEGMENT}(?:\.{_SEGMENT})*)\s*(=.*)?", re.DOTALL)
_PLAIN = re.compile(r"[^.\"'=\s](?:[^.=\x00-\x1f\x7f-\x9f\u2028\u2029]*[^.=\s])?")


def split_assignment(text: str) -> tuple[Keys, str | None]:
    """``KEY=VALUE`` as the key's segments and the value's text; None where there is no ``=``.

    Raises ValueError for a key that cannot be read.
    """
    match = _KEY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:80]!r} is no dotted key")
    segments = cast("list[str]", re.findall(_SEGMENT, match[1]))
    value = match[2]
    return tuple(_unquoted(segment) for segment in segments), None if value is None else value[1:]


def split_key(text: str) -> Keys:
    """The segments of a dotted key. Raises ValueError for one that cannot be read."""
    keys, value = split_assignment(text)
    if value is not None:
        raise ValueError(f"{text[:80]!r} is no dotted key")
    return keys


def join_key(keys: Keys) -> str:
    """The dotted key of segments; `split_key` reads it back."""
    return ".".join(key if _PLAIN.fullmatch(key) else _quoted(key) for key in keys)


def key_text(key: object) -> str:
    """The segment that names ``key`` of a mapping."""
    return cell_text(cast("Cell", key))


def below(value: object, segment: str) -> tuple[int | str, object] | None:
    """The own key and the value that ``segment`` names in a mapping or list; None where it names nothing."""
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return next(((key, item) for key, item in items if key_text(key) == segment), None)
    if isinstance(value, list) and segment.isdecimal():
        entries = cast("list[object]", value)
        return (int(segment), entries[int(segment)]) if int(segment) < len(entries) else None
    return None


def value_at(keys: Keys, value: object) -> object:
    """The value of a key; None where there is none."""
    for key in keys:
        found = below(value, key)
        value = None if found is None else found[1]
    return value


def _quoted(segment: str) -> str:
    """In quotes, on one line."""
    return json.dumps(segment, ensure_ascii=not segment.isprintable())


def _unquoted(segment: str) -> str:
    if segment.startswith('"'):
        return cast("str", json.loads(segment))
    return segment[1:-1] if segment.startswith("'") else segment
