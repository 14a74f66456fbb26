"""`Work`: the folder in which a job keeps what it has written, with a journal that says how much of that counts.

``OUT.part/rows/`` holds the files as they will be; ``F.part`` is the list of rejected rows. Behind each chunk both are
brought to the disk, then ``journal.json`` is replaced. Going on cuts the files back to what it says. At the end the
journal says so, the files get their names by renames, and the folder goes, the journal last.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from manyhead.errors import CheckpointError, UsageError
from manyhead.faults import at
from manyhead.files import read_json, sync_folder, write_json, writing
from manyhead.inference.bulk.part_file import PartFile

ENDING = ".part"

_JOURNAL, _ROWS, _SPOOL, _HALF = "journal.json", "rows", "spool", "half"
_SHOWN = 3

Facts = Mapping[str, Any]
"""What is done, or what it is done on, by name; values as JSON has them."""


@dataclass(frozen=True)
class Progress:
    """What counts: ``shard`` files are finished; of the next one ``rows`` rows, which are ``bytes`` bytes.

    ``rejected_bytes`` of the list of rejected rows count, and ``account`` is of all of them. ``is_done``: nothing is
    left but renames.
    """

    shard: int = 0
    rows: int = 0
    bytes: int = 0
    rejected_bytes: int = 0
    account: dict[str, Any] = field(default_factory=dict[str, Any])
    is_done: bool = False


class Work:
    """The folder of a job that writes ``target``, a file or a folder, and lists rejected rows in ``rejected``.

    A job that is not ``resumable`` has no journal, and its folder goes however it ends.
    """

    def __init__(self, target: Path, *, is_folder: bool, rejected: Path | None, resumable: bool) -> None:
        self.target = target = target if target.name not in ("", "..") else target.resolve()
        self.resumable = resumable
        self.progress = Progress()
        self._is_folder = is_folder
        self._rejected = rejected
        self.path = target.with_name(f"{target.name}{ENDING}" if resumable else f".tmp-{os.getpid()}-{target.name}")
        self._rejected_part = None if rejected is None else rejected.with_name(f"{rejected.name}{ENDING}")
        self._facts: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._remove_at_end = True

    @property
    def is_left(self) -> bool:
        """Whether what is done stays, for a job that goes on."""
        return not self._remove_at_end

    @contextmanager
    def opened(self, facts: Facts, *, resume: bool) -> Iterator[None]:
        """Holds the folder for this process; ``facts`` say what is done.

        Raises `UsageError` where another process has it, where a job was left that ``resume`` does not go on with, and
        where that job was another one. What a job left without a journal counts nothing.
        """
        with writing(str(self.path)):
            self.path.mkdir(exist_ok=True)
        with _locked(self.path):
            self._take_up(resume)
            self.same(facts)
            try:
                yield
            finally:
                if self._remove_at_end:
                    self._remove()

    def same(self, facts: Facts) -> None:
        """Notes ``facts``. Raises `UsageError` where they were others when the job began."""
        others = [
            f"{name}: {_difference(self._before[name], now)}"
            for name, now in facts.items()
            if name in self._before and self._before[name] != now
        ]
        if others:
            raise UsageError(
                f"{self.path}: the job that was stopped was another one ({'; '.join(others)}); expected the same "
                "again; remove the folder to begin anew"
            )
        self._facts |= facts

    def changed(self, facts: Facts) -> list[str]:
        """Notes ``facts`` that may change; those that were others when the job began, in words."""
        before = self._before
        self._facts |= facts
        return [f"{name} was {before[name]}, is {now}" for name, now in facts.items() if before.get(name, now) != now]

    def finished(self, name: str) -> Path:
        """The place of the file ``name``, where it is finished or is the one in progress."""
        return self.path / _ROWS / name

    def open_rows(self, name: str, *, packed: bool = False) -> PartFile:
        """The file ``name``, which is in progress."""
        return PartFile(self._made(self.finished(name)), self.progress.bytes, packed=packed)

    def open_spool(self) -> PartFile:
        """What is in progress where the file itself cannot be written piece by piece."""
        return PartFile(self.path / _SPOOL, self.progress.bytes)

    def convert_spool(self, name: str, convert: Callable[[Path, Path], None]) -> None:
        """Makes the finished file ``name`` of the spool, which stays until another file begins."""
        half = self.path / _HALF
        with writing(str(half)):
            convert(self.path / _SPOOL, half)
            with half.open("rb") as file:
                os.fsync(file.fileno())
            half.replace(self._made(self.finished(name)))

    def open_rejected(self) -> PartFile | None:
        """The list of rejected rows, where one is wanted."""
        return None if self._rejected_part is None else PartFile(self._rejected_part, self.progress.rejected_bytes)

    def commit(self, progress: Progress) -> None:
        """Makes ``progress`` count; the files it speaks of have to be on the disk."""
        self.progress = progress
        if not self.resumable:
            return
        at("bulk: the rows are on the disk", progress)
        with writing(str(self.path / _JOURNAL)):
            if (self.path / _ROWS).exists():
                sync_folder(self.path / _ROWS)
            write_json(self.path / _JOURNAL, {"facts": self._facts, **asdict(progress)})
        self._remove_at_end = False
        at("bulk: committed", progress)

    def publish(self) -> None:
        """Gives the output, and the list of rejected rows, their names. It may be repeated behind a kill anywhere."""
        made = self.path / _ROWS if self._is_folder else self.finished(self.target.name)
        at("bulk: all is written", self.target)
        with writing(str(self.target)):
            if made.exists():
                made.replace(self.target)
                sync_folder(self.target.parent)
            at("bulk: the output has its name", self.target)
            if self._rejected is not None and self._rejected_part is not None and self._rejected_part.exists():
                self._rejected_part.replace(self._rejected)
                sync_folder(self._rejected.parent)
            at("bulk: the rejected rows have their name", self.target)
        self._remove()

    def _take_up(self, resume: bool) -> None:
        path = self.path / _JOURNAL
        if not path.exists():
            return
        self._remove_at_end = False
        if not resume:
            raise UsageError(
                f"{self.path}: is what a job that was stopped has written; go on with it by --resume, or remove it to "
                "begin anew"
            )
        try:
            journal = read_json(path)
            self.progress = Progress(**{name: journal[name] for name in asdict(Progress())})
            self._before = dict(journal["facts"])
        except (CheckpointError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be used: {error!r}; remove {self.path} to begin anew") from None

    def _made(self, path: Path) -> Path:
        with writing(str(path)):
            path.parent.mkdir(exist_ok=True)
        return path

    def _remove(self) -> None:
        parts = [self.path / _SPOOL, self.path / _HALF]
        if self._rejected_part is not None:
            parts.append(self._rejected_part)
        shutil.rmtree(self.path / _ROWS, ignore_errors=True)
        with suppress(OSError):
            for path in (*parts, self.path / _JOURNAL):
                at("bulk: a part goes", path)
                path.unlink(missing_ok=True)
            self.path.rmdir()
        self._remove_at_end = False


def _difference(before: object, now: object) -> str:
    """What is other, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        old, new = cast("dict[str, object]", before), cast("dict[str, object]", now)
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return f"{', '.join(names[:_SHOWN])}{' and others' if len(names) > _SHOWN else ''} changed"
    return f"was {before}, is {now}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds ``folder`` until the block or the process ends."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{folder}: another process is writing there; wait for it or stop it") from None
        yield
    finally:
        os.close(handle)
