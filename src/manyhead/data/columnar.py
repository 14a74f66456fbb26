"""Parquet and Arrow files, read in batches; only the columns asked for are decoded."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from manyhead.data.table import Cell, Nested, Row, Table
from manyhead.errors import DataError, Problem

Kind = Literal["parquet", "arrow"]

_BATCH_ROWS = 4096
_ARROW_FILE = b"ARROW1"


class ColumnarTable(Table):
    """A Parquet file, or an Arrow file or stream (Feather version 2). Lines are rows, from 1."""

    def __init__(self, path: Path, kind: Kind) -> None:
        self._kind = kind
        with _damage_reported(path):
            schema = pq.read_schema(path) if kind == "parquet" else _arrow_schema(path)
        super().__init__(path, schema.names, kind.capitalize())

    def _rows(self, names: Sequence[str]) -> Iterator[Row]:
        with _damage_reported(self.path):
            done = 0
            for batch in self._batches(names):
                chosen = batch.columns if self._are_all(names) else [batch.column(name) for name in names]
                columns = [self._cells(column) for column in chosen]
                yield from enumerate(zip(*columns, strict=True), done + 1)
                done += batch.num_rows

    def _are_all(self, names: Sequence[str]) -> bool:
        """Whether all columns are wanted: then by place, since names may stand there twice."""
        return tuple(names) == self.columns

    def _batches(self, names: Sequence[str]) -> Iterator[Any]:
        if self._kind == "parquet":
            wanted = None if self._are_all(names) else list(dict.fromkeys(names))
            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(_BATCH_ROWS, columns=wanted)
        else:
            for batch in _arrow_batches(self.path):
                yield from (batch.slice(start, _BATCH_ROWS) for start in range(0, batch.num_rows, _BATCH_ROWS))

    def _cells(self, column: Any) -> Sequence[Cell]:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        kind = column.type
        if pa.types.is_decimal(kind):
            return column.cast(pa.float64()).to_pylist()
        if pa.types.is_nested(kind):
            return [None if v is None else Nested(json.dumps(v, default=str)) for v in _values(column)]
        if any(is_text(kind) for is_text in _TEXT_TYPES):
            return self._texts(column)
        if any(is_plain(kind) for is_plain in _PLAIN_TYPES):
            return column.to_pylist()
        return [None if value is None else str(value) for value in _values(column)]

    def _texts(self, column: Any) -> list[str | None]:
        """Texts; Arrow does not check their bytes, so those that are not UTF-8 are mended and counted here."""
        try:
            return column.cast(pa.large_string()).to_pylist()
        except (UnicodeDecodeError, pa.ArrowInvalid):
            texts = [None if v is None else v.decode("utf-8", "replace") for v in column.cast(pa.binary()).to_pylist()]
            self.replaced += sum(text.count("\ufffd") for text in texts if text is not None)
            return texts


_TEXT_TYPES = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary),
)
_PLAIN_TYPES = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)


def _values(column: Any) -> list[Any]:
    """The column as Python's values; where Python has none, such as for the year 100,000, as text."""
    try:
        return column.to_pylist()
    except (OverflowError, ValueError):
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    for read in (scalar.as_py, lambda: scalar.cast(pa.string()).as_py()):
        with suppress(OverflowError, ValueError, pa.ArrowException):
            return read()
    return "unreadable"


def _arrow_batches(path: Path) -> Iterator[Any]:
    with pa.memory_map(str(path)) as memory:
        reader = _arrow_reader(memory)
        if isinstance(reader, ipc.RecordBatchFileReader):
            yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            yield from reader


def _arrow_schema(path: Path) -> Any:
    with pa.memory_map(str(path)) as memory:
        return _arrow_reader(memory).schema


def _arrow_reader(memory: Any) -> Any:
    is_file = memory.read(len(_ARROW_FILE)) == _ARROW_FILE
    memory.seek(0)
    return (ipc.open_file if is_file else ipc.open_stream)(memory)


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        problem = f"damaged file: {str(error).splitlines()[0]}"
        raise DataError([Problem(problem, path, do="fetch or write it again")]) from None
