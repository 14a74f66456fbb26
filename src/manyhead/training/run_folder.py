"""The run folder: created by one rename, locked while it is written, its log cut back on resume."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any
from uuid import uuid4

from manyhead.errors import CheckpointError, UsageError
from manyhead.faults import at
from manyhead.files import (
    MANIFEST,
    manifest_problem,
    new_folder,
    read_json,
    restore_replaced,
    sha256_of,
    sync_folder,
    write_json,
    write_manifest,
    write_text,
    writing,
)

RECIPE = "recipe.yaml"
STATE = "state.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
MAPS = "maps.json"
CHECKPOINTS = "checkpoints"
BEST = "best"
MODEL = "model"
ENCODER = "encoder"
PREDICTIONS = "predictions"
_LOCK = ".lock"
_NEXT_RECIPE = ".tmp-next-recipe.yaml"
_CHUNK = 1 << 20
_NOTHING = hashlib.sha256().hexdigest()


class RunFolder:
    """A run on disk. Open one with `create_run` or `open_run`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / CHECKPOINTS
        self.encoder = path / ENCODER
        self._metrics: FileIO | None = None
        self._logged = hashlib.sha256()

    @cached_property
    def id(self) -> str:
        """What no other run is named by; its checkpoints have it too."""
        return self.read_state()["id"]

    def read_state(self) -> dict[str, Any]:
        """state.json. Raises `CheckpointError` where it cannot be read, or is not what was written."""
        state = read_json(self.path / STATE)
        if not isinstance(state, dict) or state.pop("sha256", None) != _hash_of(state):
            raise CheckpointError(
                f"{self.path / STATE}: is not what was written (sha256 differs); expected the run's own file; bring it "
                "back, or start a new run by --out"
            )
        return state

    def update_state(self, **changes: Any) -> None:
        """Replaces keys of state.json."""
        with writing(str(self.path / STATE)):
            _write_state(self.path, {**self.read_state(), **changes})

    def replace_recipe(self, text: str) -> None:
        """Replaces recipe.yaml, and what the manifest says of it."""
        with writing(str(self.path / RECIPE)):
            write_text(self.path / _NEXT_RECIPE, text)
            write_json(self.path / MANIFEST, self._manifest_with_next_recipe())
            (self.path / _NEXT_RECIPE).replace(self.path / RECIPE)
            sync_folder(self.path)

    def _manifest_with_next_recipe(self) -> dict[str, Any]:
        path = self.path / _NEXT_RECIPE
        facts = {"size": path.stat().st_size, "sha256": sha256_of(path)}
        return {"files": {**read_json(self.path / MANIFEST)["files"], RECIPE: facts}}

    def check_whole(self) -> None:
        """Raises `CheckpointError` where recipe.yaml, or the encoder's configuration or tokenizer, was changed."""
        problem = manifest_problem(self.path, [RECIPE])
        if problem is not None:
            raise CheckpointError(
                f"{self.path}: {problem}; expected the run's own file; bring it back, or start a new run by --out"
            )

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends one line to metrics.jsonl."""
        with writing(str(self.path / METRICS)):
            if self._metrics is None:
                self._metrics = (self.path / METRICS).open("ab", buffering=0)
            line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
            if at("log", self._metrics.write(line)) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._logged.update(line)

    def logged(self) -> tuple[int, str]:
        """Length and sha256 of metrics.jsonl, which a checkpoint records."""
        return self._logged_bytes(), self._logged.hexdigest()

    def sync_log(self) -> None:
        """Brings to the disk what was logged so far."""
        if self._metrics is not None:
            with writing(str(self.path / METRICS)):
                os.fsync(self._metrics.fileno())

    def cut_log(self, size: int, sha256: str = _NOTHING) -> bool:
        """Cuts metrics.jsonl back to ``size`` bytes, dropping what was logged after a checkpoint.

        Says whether what is left is what was logged. Raises `CheckpointError` where lines that the checkpoint knew are
        gone.
        """
        path = self.path / METRICS
        if self._logged_bytes() < size:
            raise CheckpointError(
                f"{path}: has {self._logged_bytes()} bytes, the checkpoint was written at {size}; expected the run's "
                "own log; bring it back or start a new run by --out"
            )
        self._logged = hashlib.sha256()
        if path.exists():
            with writing(str(path)), path.open("r+b") as file:
                file.truncate(size)
                os.fsync(file.fileno())
                while chunk := file.read(_CHUNK):
                    self._logged.update(chunk)
        return self._logged.hexdigest() == sha256

    def _logged_bytes(self) -> int:
        path = self.path / METRICS
        return path.stat().st_size if path.exists() else 0

    def undo_what_was_half_done(self) -> None:
        """Undoes what a killed process left half done; call it while the run is locked."""
        following = self.path / _NEXT_RECIPE
        with writing(str(self.path)):
            restore_replaced(self.checkpoints)
            if following.is_file() and read_json(self.path / MANIFEST) == self._manifest_with_next_recipe():
                following.replace(self.path / RECIPE)
            for path in list(self.path.rglob(".tmp-*")):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def remove_model(self) -> None:
        """Removes a model that was written: it is to be another."""
        model, doomed = self.path / MODEL, self.path / f".tmp-old-{MODEL}"
        with writing(str(model)):
            if model.exists():
                model.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def point_best(self, checkpoint: Path) -> None:
        """Makes ``best`` a link to ``checkpoint``."""
        link = self.path / f".tmp-{os.getpid()}-{BEST}"
        with writing(str(self.path / BEST)):
            with suppress(FileNotFoundError):
                link.unlink()
            link.symlink_to(Path(CHECKPOINTS) / checkpoint.name)
            link.replace(self.path / BEST)
            sync_folder(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for this process. Raises `UsageError` where another process has it."""
        with writing(str(self.path / _LOCK)):
            handle = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"{self.path}: another process is training in this run; wait for it or stop it"
                ) from error
            try:
                yield
            finally:
                # Closing would leave it with a child that has not started its own program yet.
                fcntl.flock(handle, fcntl.LOCK_UN)
        finally:
            os.close(handle)
            if self._metrics is not None:
                self._metrics.close()
                self._metrics = None

    def is_locked(self) -> bool:
        """Whether a process has the run. Writes nothing, so that a folder that can only be read can be asked."""
        try:
            handle = os.open(self.path / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(handle, fcntl.LOCK_UN)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False


def check_free(path: Path) -> None:
    """Raises `UsageError` where a run cannot be created at ``path``: it exists, or its parent cannot be written."""
    try:
        exists = path.exists() or path.is_symlink()
        parent = next(folder for folder in [path.parent, *path.parent.parents] if folder.exists())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; expected a folder for the run; choose another by --out") from error
    if exists:
        raise _taken(path)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"{parent} cannot be written to; expected a folder for the run; choose another by --out")


def is_empty(path: Path) -> bool:
    """Whether a folder holds nothing."""
    return next(path.iterdir(), None) is None


def create_run(path: Path, recipe: str, state: Mapping[str, Any], save_encoder: Callable[[Path], None]) -> RunFolder:
    """A new run at ``path``, already holding state.json, recipe.yaml and the encoder's configuration and tokenizer.

    A manifest has the hashes of the last three; state.json has its own.
    """
    check_free(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(path) as temporary:
            (temporary / RECIPE).write_text(recipe, encoding="utf-8")
            (temporary / ENCODER).mkdir()
            save_encoder(temporary / ENCODER)
            write_manifest(temporary)
            _write_state(temporary, {**state, "id": uuid4().hex})
            (temporary / CHECKPOINTS).mkdir()
    except FileExistsError:
        raise _taken(path) from None
    except OSError:
        with writing(str(path)):
            raise
    return RunFolder(path)


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    write_json(folder / STATE, {**state, "sha256": _hash_of(state)})


def _hash_of(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _taken(path: Path) -> UsageError:
    do = "go on with it by --resume, or choose another folder by --out"
    return UsageError(f"{path} exists already; expected a new folder; {do}")


def open_run(path: Path) -> RunFolder:
    """The run at ``path``. Raises `CheckpointError` where there is none."""
    if not (path / RECIPE).is_file():
        raise CheckpointError(f"{path}: no {RECIPE} there; expected a run folder of manyhead; check the path")
    return RunFolder(path)
