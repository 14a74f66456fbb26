"""JSON lines: one object a line."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, cast

from manyhead.data.table import Cell, Nested, Row, Table
from manyhead.data.text import TextSource
from manyhead.errors import DataError, Problem

_COLUMN_SAMPLE_LINES = 1000


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
            found = _parse(text) if text.strip() else {}
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
            found = _parse(text)
            if isinstance(found, str):
                self.rejects.add(line, found)
            else:
                yield line, tuple([self._cell(found.get(name)) for name in names])

    def _cell(self, value: object) -> Cell:
        if isinstance(value, str):
            return self.clean(value)
        if value is None or isinstance(value, (int, float)):
            return value
        return Nested(self.clean(json.dumps(value, ensure_ascii=False)))


def _parse(text: str) -> dict[str, Any] | str:
    """The object of a line, or why there is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return "not valid JSON"
    return cast("dict[str, Any]", found) if isinstance(found, dict) else "not a JSON object"
