"""Writing so that a reader never sees half a file or half a folder: temporary name, fsync, rename."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from manyhead.errors import CheckpointError, WriteError

_CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256_of(path: Path) -> str:
    """Hex digest of the file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Replaces the file at ``path`` in one rename."""
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replaces the file at ``path`` with ``value`` as JSON, indented by 2."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file of ours holds. Raises `CheckpointError` where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}; expected a run of manyhead") from error


def sync_folder(folder: Path) -> None:
    """Makes renames inside ``folder`` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside ``final`` that takes its name, by one rename, when the block ends well.

    All files in it are fsynced first; after an error it is removed. Raises FileExistsError where ``final`` exists.
    """
    temporary = final.with_name(f".tmp-{os.getpid()}-{final.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            if path.is_dir():
                sync_folder(path)
            else:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        sync_folder(temporary)
        try:
            if final.exists():
                raise FileExistsError(final)
            temporary.rename(final)
        except OSError as error:
            if final.exists():
                raise FileExistsError(final) from error
            raise
        sync_folder(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turns an operating system's error while ``what`` is written into a `WriteError`."""
    try:
        yield
    except OSError as error:
        do = "free some space" if error.errno in _FULL else "check the folder, or choose another place"
        raise WriteError(f"{what} could not be written: {error.strerror or error}; {do}") from error
