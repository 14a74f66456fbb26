"""Writing so that a reader never sees half a file or half a folder: temporary name, fsync, rename."""

import csv
import errno
import glob
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from manyhead.errors import CheckpointError, WriteError
from manyhead.faults import at

MANIFEST = "manifest.json"
"""Written last into a folder: size and sha256 of each other file in it."""

_CHUNK = 1 << 20
_HASHING_THREADS = 8
_SETTLED_NS = 2_000_000_000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256_of(path: Path) -> str:
    """Hex digest of the file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256s_of(paths: Sequence[Path]) -> list[str]:
    """`sha256_of` each file, several at a time: sums are taken, and disks read, beside each other."""
    with ThreadPoolExecutor(min(_HASHING_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(sha256_of, paths))


class FileHashes:
    """`sha256_of` files, each read once as long as it looks the same.

    Size, inode and times tell a file that is written to. They need not while its times are of this very moment, so the
    sum of a file that has just been written is not kept.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[_Looks, str]] = {}

    def __call__(self, path: Path) -> str:
        """Hex digest of the file's bytes."""
        looks, known = _looks(path), self._known.get(path)
        if known is not None and known[0] == looks:
            return known[1]
        began, found = time.time_ns(), sha256_of(path)
        if max(looks[2:]) + _SETTLED_NS < began:
            self._known[path] = looks, found
        return found


_Looks = tuple[int, int, int, int]


def _looks(path: Path) -> _Looks:
    """Size, inode, and the times at which the content and the entry changed."""
    stat = path.stat()
    return stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns


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


def csv_writer(file: IO[str], delimiter: str = ",") -> Any:
    """A `csv.writer` whose rows end in LF and whose cells read back as they were."""
    return csv.writer(_LineFeeds(file), delimiter=delimiter, lineterminator="\r\n")


class _LineFeeds:
    """Ends rows in LF. The csv module quotes a CR inside a cell only where rows end in CR LF."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, row: str) -> int:
        """Takes one whole row."""
        return self._file.write(row.removesuffix("\r\n") + "\n")


def write_json(path: Path, value: Any) -> None:
    """Replaces the file at ``path`` with ``value`` as JSON, indented by 2."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file of ours holds. Raises `CheckpointError` where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}; expected a run of manyhead") from error


def write_manifest(folder: Path, names: Collection[str] | None = None) -> None:
    """Writes the manifest of the files ``names`` in ``folder``, paths with ``/``; of all that are there by default."""
    if names is None:
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    paths = {name: folder / name for name in sorted(names) if name != MANIFEST}
    files = {name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for name, path in paths.items()}
    write_json(folder / MANIFEST, {"files": files})


def manifest_problem(folder: Path, needed: Collection[str] = (), *, others: bool = True) -> str | None:
    """What is wrong with the files that the manifest in ``folder`` lists, and those ``needed``; None if nothing.

    With ``others`` False only those ``needed`` are looked at. No file is read that is not of its size, and none outside
    ``folder``.
    """
    try:
        listed = _listed(folder / MANIFEST)
        names = sorted({*needed, *listed} if others else needed)
        for name in names:
            _check_size(folder, name, listed)
        changed = [name for name in names if sha256_of(folder / name) != listed[name][1]]
    except (OSError, ValueError) as error:
        return str(error)
    return f"{changed[0]} is not what was written (its sha256 differs)" if changed else None


def is_listed(folder: Path, name: str) -> bool:
    """Whether the manifest in ``folder`` lists ``name``; no if it cannot be read, which `manifest_problem` tells."""
    try:
        return name in _listed(folder / MANIFEST)
    except (OSError, ValueError):
        return False


def _listed(manifest: Path) -> dict[str, tuple[int, str]]:
    """Size and sha256 by file name. Raises ValueError where they cannot be read."""
    if not manifest.is_file():
        raise ValueError(f"{MANIFEST}, which tells whether the files are whole, is missing")
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        return {name: (int(facts["size"]), str(facts["sha256"])) for name, facts in files.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{MANIFEST} cannot be read ({type(error).__name__}: {error})") from error


def _check_size(folder: Path, name: str, listed: Mapping[str, tuple[int, str]]) -> None:
    if name not in listed:
        raise ValueError(f"{name} is not in {MANIFEST}")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{MANIFEST} names {name}, which is not in the folder")
    if not (folder / name).is_file():
        raise ValueError(f"{name} is missing")
    if (size := (folder / name).stat().st_size) != listed[name][0]:
        raise ValueError(f"{name} has {size} bytes, {MANIFEST} says {listed[name][0]}")


def sync_folder(folder: Path) -> None:
    """Makes renames inside ``folder`` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_REPLACED = ".tmp-replaced-"


@contextmanager
def new_folder(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``final`` that takes its name, by one rename, when the block ends well.

    All files in it are fsynced first; after an error it is removed. With ``replace`` a folder that has the name makes
    way in another rename, just before; `restore_replaced` undoes that where the process is killed in between. Raises
    FileExistsError where ``final`` exists otherwise.
    """
    before, after = f".tmp-{socket.gethostname()}-", f"-{final.name}"
    _remove_of_dead(final.parent, before, after)
    temporary = final.with_name(f"{before}{os.getpid()}{after}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    replaced = final.with_name(f"{_REPLACED}{final.name}")
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            if path.is_dir():
                sync_folder(path)
            else:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        sync_folder(temporary)
        at("publish: all is on the disk", final)
        try:
            if replace and final.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                final.rename(replaced)
                at("publish: the old one made way", final)
            if final.exists():
                raise FileExistsError(final)
            temporary.rename(final)
            at("publish: renamed", final)
        except OSError as error:
            restore_replaced(final.parent)
            if final.exists() and not replace:
                raise FileExistsError(final) from error
            raise
        sync_folder(final.parent)
        if replace:
            shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_of_dead(folder: Path, before: str, after: str) -> None:
    """Removes temporary folders whose processes, named between ``before`` and ``after``, were killed."""
    for path in folder.glob(f"{glob.escape(before)}*{glob.escape(after)}"):
        process = path.name.removeprefix(before).removesuffix(after)
        if process.isdecimal() and not is_alive(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def is_alive(process: int) -> bool:
    """Whether a process of this machine runs; true where that cannot be told."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def restore_replaced(folder: Path) -> None:
    """Gives the folders below ``folder`` that made way for ones which never came their names back."""
    for path in folder.glob(f"{_REPLACED}*"):
        final = path.with_name(path.name.removeprefix(_REPLACED))
        if not final.exists():
            path.rename(final)


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turns an operating system's error while ``what`` is written into a `WriteError`."""
    try:
        yield
    except OSError as error:
        do = "free some space" if error.errno in _FULL else "check the folder, or choose another place"
        raise WriteError(f"{what} could not be written: {error.strerror or error}; {do}") from error
