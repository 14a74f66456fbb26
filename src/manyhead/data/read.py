"""Reading tables: the format is found out, whatever the file's name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from manyhead.data.delimited import open_delimited
from manyhead.data.jsonl import JsonlTable
from manyhead.data.table import Table, missing_file
from manyhead.data.text import TextSource, open_bytes
from manyhead.errors import DataError, Problem
from manyhead.recipe.schema import Format, Quoting

_JSONL_ENDINGS = (".jsonl", ".ndjson", ".json")
ColumnarKind = Literal["parquet", "arrow"]

_MAGIC: dict[bytes, ColumnarKind] = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff" * 4: "arrow"}
_DELIMITERS: dict[Format, str] = {"csv": ",", "tsv": "\t"}


def read_table(
    path: Path,
    *,
    format: Format = "auto",
    quoting: Quoting = "auto",
    charset: str = "utf-8",
    columns: Sequence[str] | None = None,
) -> Table:
    """Opens a file of rows; nothing but its beginning is read before the table is iterated.

    ``format`` auto goes by content and ending; csv is commas, tsv is tabs; gzip is seen by itself. ``quoting`` auto
    goes by evidence in the file. ``columns`` names the columns of a delimited file without a header.

    Raises `DataError` for a file that is missing, empty, damaged, binary, not in ``charset`` or not in ``format``.
    """
    if not path.is_file():
        raise DataError([missing_file(path)])
    if (kind := _columnar_kind(path)) is not None:
        _check_options(path, kind, format, columns)
        return _open_columnar(path, kind)
    source = TextSource(path, charset)
    if format == "jsonl" or (format == "auto" and _looks_like_jsonl(source)):
        _check_options(path, "jsonl", format, columns)
        return JsonlTable(source)
    _check_options(path, "csv", "csv" if format == "tsv" else format, None)
    quotes = None if quoting == "auto" else quoting
    return open_delimited(source, delimiter=_DELIMITERS.get(format), quotes=quotes, header=columns)


def _check_options(path: Path, found: Format, given: Format, columns: Sequence[str] | None) -> None:
    if given not in ("auto", found):
        do = "leave format out: it is found by content"
        raise DataError([Problem(f"the file is not in format {given}", path, do=do)])
    if columns is not None:
        do = "remove the key columns: this file names its own"
        raise DataError([Problem("columns is for CSV and TSV files without a header", path, do=do)])


def _columnar_kind(path: Path) -> ColumnarKind | None:
    with open_bytes(path) as file:
        head = file.read(6)
    if not head:
        raise DataError([Problem("the file is empty", path, expected="a header line and rows")])
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def _looks_like_jsonl(source: TextSource) -> bool:
    """By ending; else a first object whose text ends with its line."""
    return source.name.lower().endswith(_JSONL_ENDINGS) or source.head.lstrip("\ufeff \t\r\n").startswith('{"')


def _open_columnar(path: Path, kind: ColumnarKind) -> Table:
    """Imports pyarrow, which takes half a second, only for files that need it."""
    from manyhead.data.columnar import ColumnarTable

    return ColumnarTable(path, kind)
