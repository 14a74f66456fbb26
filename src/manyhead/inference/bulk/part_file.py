"""`PartFile`: a file that grows, and can be cut back to what counts."""

import gzip
import os
from pathlib import Path

from manyhead.errors import CheckpointError
from manyhead.faults import at
from manyhead.files import writing


class PartFile:
    """The first ``size`` bytes of the file at ``path``, which may be there already, and what is written behind them.

    With ``packed`` each piece is a gzip member, so that the file can be cut between them. Raises `CheckpointError`
    where fewer bytes are there, `WriteError` where it cannot be written.
    """

    def __init__(self, path: Path, size: int = 0, *, packed: bool = False) -> None:
        self._path = path
        self._packed = packed
        found = path.stat().st_size if path.exists() else 0
        if found < size:
            raise CheckpointError(
                f"{path}: has {found:,} bytes of {size:,} that the job's journal counts; expected what the job wrote; "
                "remove the folder of the job to begin anew"
            )
        with writing(str(path)):
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
            self._file.truncate(size)
            self._file.seek(size)

    def write(self, data: bytes, /) -> None:
        """Appends ``data``."""
        left = memoryview(gzip.compress(data, mtime=0) if self._packed and data else data)
        with writing(str(self._path)):
            while left:
                left = left[self._file.write(at("bulk: a piece is written", left)) :]

    def flush(self) -> None:
        """Nothing waits."""

    def sync(self) -> int:
        """Brings it to the disk; its size in bytes."""
        with writing(str(self._path)):
            os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """No more is written."""
        self._file.close()
