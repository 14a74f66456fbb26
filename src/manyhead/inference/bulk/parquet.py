"""Parquet output. Its footer needs all rows, so chunks wait in a spool, which can be cut and gone on with like text.

The spool is one Arrow stream a chunk, each with the types of its own cells. The file gets one type a column: that of
all chunks, where whole numbers beside others become floats, and anything else of several kinds becomes text.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from manyhead.data.table import Cell
from manyhead.inference.bulk.columns import Columns, text
from manyhead.inference.bulk.scorer import Chunk

ROW_GROUP_CHUNKS = 16

_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
_NUMBERS = {pa.int64(), pa.float64()}
_LARGEST = {pa.int64(): 2**63 - 1, pa.float64(): 2**53}
"""Whole numbers beyond these are not the same any more."""


class SpoolWriter:
    """Gives the bytes of a spool."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def head(self) -> bytes:
        """A chunk without rows, so that a file without rows has its columns."""
        return self._stream([])

    def rows(self, chunk: Chunk) -> bytes:
        """A chunk."""
        rows = [(*row.cells, *cells) for row, cells in self._columns.rows(chunk)]
        return self._stream(rows) if rows else b""

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def _stream(self, rows: Sequence[Sequence[Cell]]) -> bytes:
        names = [*self._columns.unique, *self._columns.predicted]
        by_column = list(zip(*rows, strict=True)) or [()] * len(names)
        arrays = [
            pa.array([None if cell is None else bool(cell) for cell in cells], pa.bool_())
            if name in self._columns.flags
            else _array(cells)
            for name, cells in zip(names, by_column, strict=True)
        ]
        batch = pa.record_batch(arrays, names)
        sink = pa.BufferOutputStream()
        with ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        return sink.getvalue().to_pybytes()


def write_parquet(spool: Path, path: Path) -> None:
    """Writes the Parquet file of what is in ``spool``, a few chunks in memory at a time."""
    schema = _common([batch.schema for batch in _batches(spool)])
    with pq.ParquetWriter(path, schema) as writer:
        waiting: list[pa.RecordBatch] = []
        for batch in _batches(spool):
            waiting.append(_cast(batch, schema))
            if len(waiting) == ROW_GROUP_CHUNKS:
                writer.write_table(pa.Table.from_batches(waiting, schema))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, schema))


def _batches(spool: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(spool)) as file:
        while file.tell() < file.size():
            yield from ipc.open_stream(file)


def _array(cells: Sequence[Cell]) -> pa.Array:
    """Cells of one kind as that; of several, and numbers that it cannot hold, as text."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if not kinds:
        return pa.nulls(len(cells))
    kind = _TYPES.get(float if kinds == {int, float} else next(iter(kinds)))
    fits = len(kinds) == 1 or kinds == {int, float}
    if kind is not None and fits and all(abs(cell) <= _LARGEST[kind] for cell in cells if type(cell) is int):
        return pa.array(
            [float(cell) if type(cell) is int else cell for cell in cells] if float in kinds else cells, kind
        )
    return pa.array([None if cell is None else text(cell) for cell in cells], pa.string())


def _common(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The types that hold the columns of all schemas."""
    fields: list[pa.Field] = []
    for index, name in enumerate(schemas[0].names):
        kinds = {schema.field(index).type for schema in schemas} - {pa.null()}
        kind = kinds.pop() if len(kinds) == 1 else pa.float64() if kinds and kinds <= _NUMBERS else pa.string()
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    return pa.record_batch(list(map(_as, batch.columns, schema.types)), schema=schema)


def _as(column: Any, kind: Any) -> Any:
    if column.type == kind or kind != pa.string():
        return column.cast(kind, safe=False)
    return _array([None if cell is None else text(cell) for cell in column.to_pylist()]).cast(kind)
