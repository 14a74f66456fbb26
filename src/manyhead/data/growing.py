"""Columns of numbers that grow row by row and take no memory to speak of, however long they become."""

import mmap
import tempfile
from contextlib import AbstractContextManager, suppress
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from manyhead.files import writing

IN_MEMORY_BYTES = 1 << 20
"""Columns beyond this size are kept in a file."""


class GrowingColumn:
    """Numbers of one type, appended in pieces; many of them go to a file without a name in the temporary folder.

    A context manager: what `finish` gives outlives it.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # closing writes what `finish` has not: it failed there, or is thrown away
            self._file.close()

    def append(self, values: NDArray[Any]) -> None:
        """Appends numbers. Raises `WriteError` where the temporary folder is full."""
        with _written():
            self._size += self._file.write(values.astype(self._dtype, copy=False).tobytes())

    def finish(self) -> NDArray[Any]:
        """All of the numbers, read-only, memory-mapped where they are many; nothing can be appended any more."""
        if self._size <= IN_MEMORY_BYTES:
            self._file.seek(0)
            return np.frombuffer(self._file.read(), self._dtype)
        with _written():
            self._file.flush()
            return np.frombuffer(mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ), self._dtype)


def _written() -> AbstractContextManager[None]:
    return writing("a temporary file of the data's check (TMPDIR names another folder)")
