"""Text files as lines: charset, byte-order marks, gzip, line ends; and clear refusals of what is not text."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from manyhead.errors import DataError, Problem

_HEAD_BYTES = 65_536
_GZIP = b"\x1f\x8b"
_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_WIDE = ("utf-16", "utf-32")
_NOT_TEXT = (
    (b"PK\x03\x04", "a zip archive (or a spreadsheet)", "unpack it, or save the sheet as CSV"),
    (b"%PDF", "a PDF", "give a table"),
    (b"SQLite format 3", "a SQLite database", "save the table as CSV"),
    (b"FEA1", "a Feather file of version 1", "save it as version 2 or as Parquet"),
    (b"BZh", "a bzip2 file", "unpack it, or use gzip"),
    (b"\xfd7zXZ", "an xz file", "unpack it, or use gzip"),
    (b"\x28\xb5\x2f\xfd", "a zstandard file", "unpack it, or use gzip"),
)
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\x1b"))


class TextSource:
    """A text file, plain or gzip, that can be read line by line any number of times.

    ``name`` is the file's name without .gz, ``head`` its first bytes as text, ``note`` what is unusual about it, to be
    put behind a description. Raises `DataError` for a charset that does not exist and for files that are not text.
    """

    def __init__(self, path: Path, charset: str) -> None:
        self.path = path
        with open_bytes(path) as file:
            self._is_gzip = file.read(2) == _GZIP
        self.name = path.name.removesuffix(".gz") if self._is_gzip else path.name
        head = self._head()
        self.charset = _charset_of(head, charset, path)
        _refuse_binary(head, self.charset, path)
        self._errors = "surrogatepass" if self.charset.startswith(("utf-8", *_WIDE)) else "strict"
        with self._damage_reported():
            self.head = head.decode(self.charset, "replace")
            self._end = self._line_end()
        unusual = ("gzip" if self._is_gzip else "", "" if self.charset.startswith("utf-8") else self.charset)
        self.note = "".join(f", {word}" for word in unusual if word)

    def lines(self, clean: Callable[[str], str] = str) -> Iterator[str]:
        """Lines with their ends. A CR inside a line is part of it, unless the file has no LF. Each passes ``clean``.

        Raises `DataError` naming the line whose bytes are not valid, and for a damaged gzip file.
        """
        with (
            self._damage_reported(),
            self._open() as raw,
            io.TextIOWrapper(raw, self.charset, self._errors, self._end) as file,
        ):
            for line in file:
                yield line if line.isascii() else clean(line)

    def _open(self) -> BinaryIO:
        return cast("BinaryIO", gzip.open(self.path)) if self._is_gzip else open_bytes(self.path)

    def _head(self) -> bytes:
        with self._damage_reported(), self._open() as file:
            return file.read(_HEAD_BYTES)

    def _line_end(self) -> str:
        """CR where there is no LF in the whole file: the first lines of one with LFs may be long, with CRs in them."""
        if "\r" not in self.head or "\n" in self.head:
            return "\n"
        with self._open() as raw, io.TextIOWrapper(raw, self.charset, "replace", newline="") as file:
            return "\n" if any("\n" in part for part in iter(lambda: file.read(_HEAD_BYTES), "")) else "\r"

    @contextmanager
    def _damage_reported(self) -> Iterator[None]:
        try:
            yield
        except UnicodeError as error:
            raise DataError([self._undecodable(error)]) from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError([Problem(f"damaged gzip file: {error}", self.path, do="fetch it again")]) from None

    def _undecodable(self, error: UnicodeError) -> Problem:
        """Decoders read ahead, so the bad line is found by decoding line by line."""
        what, number = _wrong(error), None
        with self._open() as file:
            for line, text in enumerate(() if self.charset.startswith(_WIDE) else file, 1):
                try:
                    text.decode(self.charset, self._errors)
                except UnicodeError as there:
                    what, number = _wrong(there), line
                    break
        do = "name the file's encoding, such as charset: latin-1"
        return Problem(f"{what} is not valid {self.charset}", self.path, number, do=do)


def _wrong(error: UnicodeError) -> str:
    """The byte that a decoder refused; some decoders do not say which."""
    return f"byte 0x{error.object[error.start]:02x}" if isinstance(error, UnicodeDecodeError) else "the text"


def open_bytes(path: Path) -> BinaryIO:
    """Opens a file for reading. Raises `DataError` where that cannot be done."""
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError([Problem(f"cannot read the file: {error.strerror}", path)]) from None


def _refuse_binary(head: bytes, charset: str, path: Path) -> None:
    """Raises `DataError` for known binary formats, unmarked UTF-16, and what is full of control characters."""
    expected = "CSV, TSV, JSONL, Parquet or Arrow"
    for magic, what, do in _NOT_TEXT:
        if head.startswith(magic):
            raise DataError([Problem(f"this is {what}", path, expected=expected, do=do)])
    if charset.startswith(_WIDE):
        return
    low, high = (head[start::2].count(0) * 2.5 > len(head) for start in (1, 0))
    if low != high:
        do = f"set charset: utf-16-{'le' if low else 'be'}"
        raise DataError([Problem("this looks like UTF-16 without a mark at its start", path, do=do)])
    controls = len(head) - len(head.translate(None, _CONTROL))
    if controls * 10 > len(head):
        raise DataError([Problem("this is not a text file", path, expected=expected)])


def _charset_of(head: bytes, charset: str, path: Path) -> str:
    try:
        "".encode(charset)
    except (LookupError, ValueError):
        problem = f"there is no charset '{charset}'"
        raise DataError([Problem(problem, path, expected="a name such as utf-8, latin-1 or cp1252")]) from None
    plain = charset.lower().replace("_", "-")
    if plain not in ("utf-8", "utf8"):
        return plain
    return next((name for bom, name in _BOMS if head.startswith(bom)), "utf-8")
