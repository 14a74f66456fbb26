"""The token cache: a split tokenised once, its arrays memory-mapped from then on.

A cache is a folder named by the hash of all that it was made from: the file's bytes, the tokenizer, and the settings
that decide what becomes of them. It appears by one rename, whole; whoever finds it checks the size and hash of each
file. So a changed file or setting is another folder, a damaged one is built again, and processes that build the same
at once do not disturb each other.
"""

import atexit
import errno
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections import Counter
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Tokenizer

from manyhead.data.examples import Examples, Resolve, findings, read_examples, reference_of, resolver
from manyhead.data.table import Reject, Rejects
from manyhead.data.task_data import StringColumn, Tally, TaskData
from manyhead.data.tokens import ExampleTokenizer, TokenStore, in_batches, plain_copy
from manyhead.errors import DataError, Problem, UsageError
from manyhead.faults import at
from manyhead.files import FileHashes, is_alive, sha256s_of, sync_folder, write_json, writing
from manyhead.recipe.schema import DevFromTrain, Recipe, Split

FORMAT = 1
"""Version of the cache's files and of what they mean; part of each cache's key."""

_META = "meta.json"
_BUILDING = ".building"
_STALE_SECONDS = 24 * 3600
_PUBLISHING_TRIES = 3

_log = logging.getLogger(__name__)


def load_task_data(
    name: str,
    split: Split,
    recipe: Recipe,
    tokenizer: Tokenizer,
    *,
    resolve: Resolve | None = None,
    hashes: FileHashes | None = None,
    cache_dir: Path | None = None,
) -> TaskData:
    """The split of task ``name``, out of the cache or tokenised into it.

    ``resolve`` finds the file (by default below ``data_dir``), ``hashes`` may know its hash, ``cache_dir`` defaults to
    `default_cache_dir`. Raises `UsageError` for a split without file, `DataError` for files that cannot be used,
    `WriteError` for a full disk.
    """
    task = recipe.tasks[name]
    reference = reference_of(task, split)
    if reference is None:
        raise UsageError(f"task '{name}' has no {split} file; name one under tasks.{name}.files.{split}")
    path = (resolve or resolver(Path(recipe.data_dir)))(reference)
    examples = read_examples(name, task, split, path, seed=recipe.seed)
    max_tokens = recipe.encoder.max_tokens
    return load_examples(examples, tokenizer, max_tokens=max_tokens, hashes=hashes, cache_dir=cache_dir)


def load_examples(
    examples: Examples,
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    hashes: FileHashes | None = None,
    cache_dir: Path | None = None,
) -> TaskData:
    """As `load_task_data`, for examples of any file."""
    root = cache_dir or default_cache_dir()
    plain = plain_copy(tokenizer)
    state = _state(examples.table.path)
    data_hash = (hashes or FileHashes())(examples.table.path)
    key = _key(examples, plain, max_tokens, data_hash)
    folder = root / key if (root / key).is_dir() else _writable(root) / key
    try:
        meta = _verified(folder)
    except _DamagedError as error:
        folder = _writable(root) / key
        if folder.is_dir():
            _log.warning("the token cache %s is damaged (%s) and is built again", folder, error)
        tokenize = ExampleTokenizer(plain, max_tokens=max_tokens, siamese=examples.task.sequences_per_example == 2)
        return _build(examples, tokenize, folder, data_hash, state)
    return _map(folder, meta, examples, data_hash)


def default_cache_dir() -> Path:
    """$MANYHEAD_CACHE, or manyhead in $XDG_CACHE_HOME, or ~/.cache/manyhead."""
    own = os.environ.get("MANYHEAD_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "manyhead"


class _DamagedError(Exception):
    """A cache that is not there, or not whole; the message says how."""


def _key(examples: Examples, tokenizer: Tokenizer, max_tokens: int, data_hash: str) -> str:
    """Hash of all that the cache's content follows from."""
    task, split, dev = examples.task, examples.split, examples.task.files.dev
    cut = [examples.seed, examples.name, dev.fraction] if examples.is_cut and isinstance(dev, DevFromTrain) else None
    made_from = {
        "format": FORMAT,
        "data": data_hash,
        "read_as": [examples.table.note, examples.table.columns],
        "tokenizer": [tokenizers.__version__, hashlib.sha256(tokenizer.to_str().encode()).hexdigest()],
        "max_tokens": max_tokens,
        "split": split,
        "cut": cut,
        "limit": task.limit.get(split),
        "task": [task.kind, task.text, task.target, task.id, task.label_cells, task.range, task.sequences_per_example],
        "options": [task.format, task.quoting, task.charset, task.columns],
    }
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


def _verified(folder: Path) -> dict[str, Any]:
    """The description of a cache whose files are all as they were written. Raises `_DamagedError`."""
    try:
        described = json.loads((folder / _META).read_bytes())
        meta = described["content"]
        if _content_hash(meta) != described["sha256"]:
            raise _DamagedError(f"{_META} is not what was written")
        for name, written in meta["files"].items():
            size = (folder / name).stat().st_size
            if size != written["bytes"]:
                raise _DamagedError(f"{name} has {size} bytes instead of {written['bytes']}")
        for name, found in zip(meta["files"], sha256s_of([folder / name for name in meta["files"]]), strict=True):
            if found != meta["files"][name]["sha256"]:
                raise _DamagedError(f"{name} is not what was written")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _DamagedError(str(error)) from None
    return meta


def _content_hash(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _map(folder: Path, meta: dict[str, Any], examples: Examples, data_hash: str) -> TaskData:
    """Opens a cache. Raises `DataError` where too few of the rows could be used."""
    tally = _tally_of(meta["tally"])
    errors, warnings = findings(tally, examples.key, examples.table.path, examples.task.max_rejected)
    if errors:
        raise DataError(errors)
    arrays = {name: _mapped(folder / name, written["dtype"]) for name, written in meta["files"].items()}
    tokens = TokenStore(
        ids=arrays["ids"],
        offsets=arrays["offsets"],
        segment_starts=arrays["segment_starts"],
        truncated=arrays["truncated"],
        sequences_per_example=examples.task.sequences_per_example,
    )
    return TaskData(
        task=examples.name,
        split=examples.split,
        tokens=tokens,
        targets=arrays.get("targets"),
        lines=arrays["lines"],
        ids=StringColumn(arrays["row_ids"], arrays["row_id_offsets"]),
        note=examples.table.note,
        data_hash=data_hash,
        label_hash=meta["files"].get("targets", {}).get("sha256"),
        tally=tally,
        warnings=tuple(warnings),
    )


def _mapped(path: Path, dtype: str) -> NDArray[Any]:
    if path.stat().st_size:
        return np.memmap(path, dtype, mode="r").view(np.ndarray)  # as itself it is slow to slice
    empty = np.empty(0, dtype)
    empty.flags.writeable = False
    return empty


def _state(path: Path) -> tuple[int, int]:
    """What changes when a file is written to."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _build(
    examples: Examples, tokenize: ExampleTokenizer, folder: Path, data_hash: str, state: tuple[int, int]
) -> TaskData:
    """Writes a cache beside its place, opens it, and moves it there.

    Raises `DataError` for a file that is no longer as it was when it was hashed, in ``state``.
    """
    with _written_to(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder.parent)
        temporary = _temporary(folder.parent)
    try:
        meta = _write(examples, tokenize, temporary)
        if _state(examples.table.path) != state:
            raise DataError([Problem("the file changed while it was read", examples.table.path, do="run again")])
        data = _map(temporary, meta, examples, data_hash)
        with _written_to(folder.parent):
            _publish(temporary, folder)
        return data
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(examples: Examples, tokenize: ExampleTokenizer, folder: Path) -> dict[str, Any]:
    """Tokenises all examples into the files of ``folder``; returns their description, which is written last."""
    with _Columns(folder) as columns:
        columns.append(_no_rows(examples, tokenize))
        n_tokens = n_bytes = 0
        for batch in in_batches(examples):
            at("tokenise: a batch", batch)
            chunk = tokenize.batch([example.texts for example in batch])
            names = [example.id.encode() for example in batch]
            name_ends = n_bytes + np.cumsum([len(name) for name in names])
            ends = n_tokens + chunk.lengths.cumsum()
            n_tokens, n_bytes = int(ends[-1]), int(name_ends[-1])
            rows = {
                "ids": chunk.ids,
                "offsets": ends,
                "segment_starts": chunk.segment_starts,
                "truncated": chunk.truncated,
                "lines": np.array([example.line for example in batch]),
                "row_ids": np.frombuffer(b"".join(names), np.uint8),
                "row_id_offsets": name_ends,
            }
            if examples.has_targets:
                rows["targets"] = np.array([example.target for example in batch])
            columns.append(rows)
        meta = {"files": columns.finish(), "tally": _plain(examples.tally())}
    with _written_to(folder.parent):
        write_json(folder / _META, {"content": meta, "sha256": _content_hash(meta)})
    return meta


def _no_rows(examples: Examples, tokenize: ExampleTokenizer) -> dict[str, NDArray[Any]]:
    """The beginning of each column, which sets its type."""
    beginning: dict[str, NDArray[Any]] = {
        "ids": np.empty(0, tokenize.dtype),
        "offsets": np.zeros(1, np.int64),
        "segment_starts": np.empty(0, np.int32),
        "truncated": np.empty(0, np.bool_),
        "lines": np.empty(0, np.int64),
        "row_ids": np.empty(0, np.uint8),
        "row_id_offsets": np.zeros(1, np.int64),
    }
    if examples.has_targets:
        beginning["targets"] = np.empty(0, np.int64 if examples.task.kind == "classification" else np.float32)
    return beginning


@dataclass
class _Column:
    """A growing file of one type of numbers, hashed as it is written."""

    file: BinaryIO
    dtype: np.dtype[Any]
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def append(self, values: NDArray[Any]) -> None:
        data = values.astype(self.dtype, copy=False).tobytes()
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)


class _Columns:
    """The growing files of a cache."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._columns: dict[str, _Column] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for column in self._columns.values():
            with suppress(OSError):  # closing writes what `finish` has not: it failed there, or is thrown away
                column.file.close()

    def append(self, rows: dict[str, NDArray[Any]]) -> None:
        """Appends to each column; the first values of one set its type."""
        with _written_to(self._folder.parent):
            for name, values in rows.items():
                if name not in self._columns:
                    self._columns[name] = _Column((self._folder / name).open("wb"), values.dtype)
                self._columns[name].append(values)

    def finish(self) -> dict[str, dict[str, Any]]:
        """Brings all to the disk, and describes each."""
        with _written_to(self._folder.parent):
            for column in self._columns.values():
                column.file.flush()
                os.fsync(column.file.fileno())
        return {
            name: {"dtype": column.dtype.str, "bytes": column.size, "sha256": column.digest.hexdigest()}
            for name, column in self._columns.items()
        }


def _publish(temporary: Path, folder: Path) -> None:
    """Renames ``temporary`` to ``folder``, unless a whole cache is there by now; a damaged one makes way."""
    for _ in range(_PUBLISHING_TRIES):
        try:
            temporary.rename(folder)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            sync_folder(folder.parent)
            return
        try:
            _verified(folder)
        except _DamagedError:
            _discard(folder)
        else:
            return


def _discard(folder: Path) -> None:
    """Removes a folder that others may look at: out of sight first."""
    aside = _temporary(folder.parent)
    with suppress(FileNotFoundError):
        folder.rename(aside / folder.name)
    shutil.rmtree(aside, ignore_errors=True)


def _temporary(root: Path) -> Path:
    """A new folder below ``root`` whose name tells whose it is."""
    return Path(tempfile.mkdtemp(prefix=f"{_BUILDING}-{os.getpid()}-{socket.gethostname()}-", dir=root))


def _remove_leftovers(root: Path) -> None:
    """Removes what dead processes of this machine left half-built, and what is older than a day."""
    for folder in root.glob(f"{_BUILDING}-*"):
        _, process, rest = folder.name.split("-", 2)
        is_ours = rest.rpartition("-")[0] == socket.gethostname()
        with suppress(OSError):
            is_old = time.time() - folder.stat().st_mtime > _STALE_SECONDS
            if is_old or (is_ours and not is_alive(int(process))):
                shutil.rmtree(folder, ignore_errors=True)


@cache
def _writable(root: Path) -> Path:
    """``root``, or a folder that lives as long as this process where it cannot be written."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return root
    except OSError as error:
        _log.warning("cannot write the token cache in %s (%s): tokens are kept only for now", root, error.strerror)
        folder = tempfile.mkdtemp(prefix="manyhead-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)


def _written_to(root: Path) -> AbstractContextManager[None]:
    return writing(f"the token cache in {root} (MANYHEAD_CACHE names another folder)")


def _plain(tally: Tally) -> dict[str, Any]:
    rejects = tally.rejects
    first = [[reject.line, reject.reason] for reject in rejects.first]
    counted = {"used": tally.used, "empty_texts": tally.empty_texts}
    noticed = {"replaced": tally.replaced, "stray_quotes": tally.stray_quotes}
    return counted | noticed | {"reasons": dict(rejects.counts), "first": first}


def _tally_of(plain: dict[str, Any]) -> Tally:
    rejects = Rejects(Counter(plain["reasons"]), [Reject(line, reason) for line, reason in plain["first"]])
    return Tally(plain["used"], rejects, plain["empty_texts"], plain["replaced"], plain["stray_quotes"])
