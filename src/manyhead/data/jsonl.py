"""JSON lines: one object a line."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, cast

from manyhead.data.table import Cell, Nested, Row, Table, without_surrogates
from manyhead.data.text import TextSource
from manyhead.errors import DataError, Problem

_COLUMN_SAMPLE_LINES = 1000
_SHOWN_CHARS = 60


class JsonlTable(Table):
    """A file of one JSON object a line.

    Its columns are the keys of the first thousand objects. A key that an object lacks is a gap (None).
    """

    def __init__(self, source: TextSource) -> None:
        self._source = source
        if source.head.lstrip().startswith("["):
            do = "write one object a line: jq -c '.[]'"
            raise DataError([Problem("this is one JSON array", source.path, expected="JSON lines", do=do)])
        super().__init__(source.path, self._find_columns(), f"JSON lines{source.note}")

    def _find_columns(self) -> list[str]:
        problem = Problem("the file holds no rows", self._source.path, expected="JSON lines")
        columns: dict[str, None] = {}
        for line, text in enumerate(islice(self._source.lines(), _COLUMN_SAMPLE_LINES), 1):
            found = parse_object(text) if text.strip() else {}
            if isinstance(found, str):
                problem = Problem(found, self._source.path, line, expected="one JSON object a line")
            else:
                columns.update(dict.fromkeys(found))
        if not columns:
            raise DataError([problem])
        return list(columns)

    def _rows(self, names: Sequence[str]) -> Iterator[Row]:
        for line, text in enumerate(self._source.lines(), 1):
            if text.isspace():
                continue
            found = parse_object(text)
            if isinstance(found, str):
                self.rejects.add(line, found)
            else:
                yield line, tuple([json_cell(found.get(name), self.clean) for name in names])


def parse_object(text: str) -> dict[str, Any] | str:
    """The object of a line, or why there is none. Lone surrogates in its keys are U+FFFD."""
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except _TwiceError as error:
        return str(error)
    except (ValueError, RecursionError):
        return "not valid JSON"
    if not isinstance(found, dict):
        return "not a JSON object"
    named = cast("dict[str, Any]", found)
    if "".join(named).isascii():
        return named
    return {without_surrogates(key)[0]: value for key, value in named.items()}


def json_cell(value: object, clean: Callable[[str], str]) -> Cell:
    """A value of an object as a cell; ``clean`` takes out what no encoder takes."""
    if isinstance(value, str):
        return clean(value)
    if value is None or isinstance(value, (int, float)):
        return value
    return Nested(clean(json.dumps(value, ensure_ascii=False)))


class _TwiceError(Exception):
    """An object holds a key twice; the message names it."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _TwiceError(f"the key {counts.most_common(1)[0][0][:_SHOWN_CHARS]!r} stands twice")
    return found
