"""The run folder: created by one rename, locked while it is written, its log cut back on resume."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from manyhead.errors import CheckpointError, UsageError
from manyhead.files import new_folder, read_json, sync_folder, write_json, writing

RECIPE = "recipe.yaml"
STATE = "state.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
CHECKPOINTS = "checkpoints"
BEST = "best"
MODEL = "model"
ENCODER = "encoder"
PREDICTIONS = "predictions"
_LOCK = ".lock"


class RunFolder:
    """A run on disk. Open one with `create_run` or `open_run`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / CHECKPOINTS
        self.encoder = path / ENCODER
        self._metrics: Any = None

    def read_state(self) -> dict[str, Any]:
        """state.json. Raises `CheckpointError` where it cannot be read."""
        return read_json(self.path / STATE)

    def update_state(self, **changes: Any) -> None:
        """Replaces keys of state.json."""
        with writing(str(self.path / STATE)):
            write_json(self.path / STATE, {**self.read_state(), **changes})

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends one line to metrics.jsonl."""
        with writing(str(self.path / METRICS)):
            if self._metrics is None:
                self._metrics = (self.path / METRICS).open("ab")
            line = json.dumps(record, ensure_ascii=False, allow_nan=False)
            self._metrics.write(line.encode() + b"\n")
            self._metrics.flush()

    def logged_bytes(self) -> int:
        """Length of metrics.jsonl on disk, which a checkpoint records."""
        path = self.path / METRICS
        if self._metrics is not None:
            os.fsync(self._metrics.fileno())
        return path.stat().st_size if path.exists() else 0

    def cut_log(self, size: int) -> None:
        """Cuts metrics.jsonl back to ``size`` bytes, dropping what was logged after a checkpoint.

        Raises `CheckpointError` where it is shorter: lines that the checkpoint knew are gone.
        """
        path = self.path / METRICS
        if self.logged_bytes() < size:
            raise CheckpointError(
                f"{path}: has {self.logged_bytes()} bytes, the checkpoint was written at {size}; expected the run's "
                "own log; bring it back or start a new run by --out"
            )
        if path.exists() and path.stat().st_size > size:
            with path.open("r+b") as file:
                file.truncate(size)
                os.fsync(file.fileno())

    def remove_leftovers(self) -> None:
        """Removes temporary files and folders that a killed process left; call it while the run is locked."""
        for path in [*self.path.glob(".tmp-*"), *self.checkpoints.glob(".tmp-*")]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

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
            yield
        finally:
            os.close(handle)
            if self._metrics is not None:
                self._metrics.close()
                self._metrics = None


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
    """A new run at ``path``, already holding recipe.yaml, state.json and the encoder's configuration and tokenizer."""
    check_free(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(path) as temporary:
            (temporary / RECIPE).write_text(recipe, encoding="utf-8")
            write_json(temporary / STATE, state)
            (temporary / CHECKPOINTS).mkdir()
            (temporary / ENCODER).mkdir()
            save_encoder(temporary / ENCODER)
    except FileExistsError:
        raise _taken(path) from None
    except OSError:
        with writing(str(path)):
            raise
    return RunFolder(path)


def _taken(path: Path) -> UsageError:
    do = "go on with it by --resume, or choose another folder by --out"
    return UsageError(f"{path} exists already; expected a new folder; {do}")


def open_run(path: Path) -> RunFolder:
    """The run at ``path``. Raises `CheckpointError` where there is none."""
    if not (path / RECIPE).is_file():
        raise CheckpointError(f"{path}: no {RECIPE} there; expected a run folder of manyhead; check the path")
    return RunFolder(path)
