"""Data from the hub: what ``hub:OWNER/NAME[/CONFIG]:SPLIT[@REVISION]`` names, as a Parquet file on this machine.

A reference is pinned to a commit, its data set read once through `datasets` (which runs no code of the data set),
and every split of it kept as ``CACHE/OWNER--NAME/COMMIT/CONFIG/SPLIT.parquet``. Cells are stored as the data set
holds them: a class label stays a number, and the label names stay in the file's schema metadata.
"""

import contextlib
import logging
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from manyhead.errors import Problem, UsageError
from manyhead.files import new_folder, writing
from manyhead.hub import HubUnreachableError, download_error, find_commit, is_commit
from manyhead.recipe.schema import Files, Recipe

log = logging.getLogger(__name__)

PREFIX = "hub:"
"""What a reference to data on the hub begins with."""

_EXPECTED = "hub:OWNER/NAME[/CONFIG]:SPLIT[@REVISION]"
_REFERENCE = re.compile(r"hub:(?P<path>[^:@]*)(:(?P<split>[^@]*)(@(?P<revision>.*))?)?", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)
_CONFIG = re.compile(r"(?!\.+$)[^/\\<>|?*\x00-\x1f]+")
_SPLIT = re.compile(r"\w+(\.\w+)*", re.ASCII)
_NO_CONFIG = "default"


@dataclass(frozen=True)
class HubReference:
    """One split of a data set on the hub. ``config`` None: its only or default one; ``revision`` None: the newest."""

    repo: str
    config: str | None
    split: str
    revision: str | None

    def __str__(self) -> str:
        config = f"/{self.config}" if self.config else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{self.repo}{config}:{self.split}{revision}"


def is_hub_reference(name: str) -> bool:
    """Whether a recipe's file is on the hub, not in a folder."""
    return name.startswith(PREFIX)


def parse_hub_reference(ref: str) -> HubReference:
    """The parts of ``ref``. Raises `UsageError` naming the part that is missing or malformed."""
    match = _REFERENCE.fullmatch(ref)
    if match is None:
        raise _malformed(ref, "is no reference to data on the hub")
    owner, name, config = [*match["path"].split("/", 2), None, None][:3]
    split, revision = match["split"], match["revision"]
    if not owner or not name or not _NAME.fullmatch(owner) or not _NAME.fullmatch(name):
        raise _malformed(ref, f"'{match['path']}' is no OWNER/NAME")
    if config is not None and not _CONFIG.fullmatch(config):
        raise _malformed(ref, f"'{config}' is no name of a configuration")
    if not split:
        raise _malformed(ref, "names no split", "add one, such as ':train'")
    if "[" in split:
        raise _malformed(ref, f"'{split}' is a part of a split", "name the whole split, and use the task's 'limit'")
    if not _SPLIT.fullmatch(split):
        raise _malformed(ref, f"'{split}' is no name of a split")
    if revision is not None and not re.fullmatch(r"[\w./-]+", revision, re.ASCII):
        raise _malformed(ref, f"'{revision}' is no revision", "use a branch, a tag or a commit")
    return HubReference(f"{owner}/{name}", config, split, revision)


def pin(ref: str, cache_dir: Path) -> str:
    """``ref`` with the commit that its revision is now.

    Without an answer from the hub, a reference to the newest revision gets the newest commit in ``cache_dir``, with
    a warning. Raises `UsageError` within 10 s where neither helps.
    """
    return str(_pinned(parse_hub_reference(ref), cache_dir))


def fetch(ref: str, cache_dir: Path) -> Path:
    """The Parquet file with the split that ``ref`` names, fetched into ``cache_dir`` unless it is there already.

    A pinned reference that is there needs neither network nor `datasets`. Raises `UsageError` where the data set
    cannot be had, has no such split or cannot be read, and `WriteError` where it cannot be stored; what was there
    before stays as it was.
    """
    reference = _pinned(parse_hub_reference(ref), cache_dir)
    folder = _folder(reference, cache_dir)
    if not folder.is_dir():
        _download(reference, folder, cache_dir)
    path = folder / f"{reference.split}.parquet"
    if not path.is_file():
        splits = ", ".join(sorted(split.stem for split in folder.glob("*.parquet")))
        raise UsageError(str(Problem(f"'{reference}': there is no split '{reference.split}'", expected=splits)))
    return path


def pin_recipe_references(recipe: Recipe, cache_dir: Path, *, encoder_revision: str | None) -> Recipe:
    """``recipe`` with every reference to the hub pinned to a commit; ``encoder_revision`` is the located encoder's.

    Raises `UsageError` as `pin` does.
    """
    tasks = {
        name: task.model_copy(update={"files": _pin_files(task.files, cache_dir)})
        for name, task in recipe.tasks.items()
    }
    encoder = recipe.encoder.model_copy(update={"revision": encoder_revision})
    return recipe.with_changes(encoder=encoder, tasks=tasks)


def _pin_files(files: Files, cache_dir: Path) -> Files:
    named = {split: getattr(files, split) for split in Files.model_fields}
    on_hub = {split: ref for split, ref in named.items() if isinstance(ref, str) and is_hub_reference(ref)}
    return files.model_copy(update={split: pin(ref, cache_dir) for split, ref in on_hub.items()})


def _pinned(reference: HubReference, cache_dir: Path) -> HubReference:
    if is_commit(reference.revision):
        return reference
    try:
        return replace(reference, revision=find_commit(reference.repo, reference.revision, "dataset").sha)
    except HubUnreachableError as error:
        commits = _cached_commits(reference, cache_dir)
        if not commits:
            raise
        newest = replace(reference, revision=commits[0])
        if reference.revision is not None:
            raise HubUnreachableError(f"{error}, or use what was fetched earlier: {newest}") from error
        log.warning("%s: the hub was not reached; using commit %s, fetched earlier", reference, commits[0])
        return newest


def _folder(reference: HubReference, cache_dir: Path) -> Path:
    config = quote(reference.config or _NO_CONFIG, safe="")
    return _repo_folder(reference, cache_dir) / str(reference.revision) / config


def _repo_folder(reference: HubReference, cache_dir: Path) -> Path:
    return cache_dir / reference.repo.replace("/", "--")


def _cached_commits(reference: HubReference, cache_dir: Path) -> list[str]:
    """Commits whose configuration is in the cache, the one fetched last first."""
    folders = _repo_folder(reference, cache_dir).glob(f"*/{_folder(reference, cache_dir).name}")
    return [folder.parent.name for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)]


def _download(reference: HubReference, folder: Path, cache_dir: Path) -> None:
    """Fills ``folder`` with all splits, at once: it appears by one rename, or not at all."""
    find_commit(reference.repo, reference.revision, "dataset")
    with writing(f"'{reference}' in {cache_dir}"):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".tmp-", ignore_cleanup_errors=True) as work:
            splits = _read_splits(reference, Path(work))
            # Where another process fetched the same commit meanwhile, its files are as good.
            with contextlib.suppress(FileExistsError), new_folder(folder) as ready:
                for split, table in splits.items():
                    _write(reference, table, ready / f"{split}.parquet")


def _read_splits(reference: HubReference, work: Path) -> Mapping[str, pa.Table]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        do = "run pip install 'manyhead[hub]', or download its files and name them under 'files'"
        raise UsageError(str(Problem(f"'{reference}' needs the package 'datasets'", do=do))) from error
    # By its address, since a local folder called OWNER/NAME would be read in its place otherwise.
    address = f"hf://datasets/{reference.repo}"
    try:
        splits: Any = load_dataset(address, reference.config, revision=reference.revision, cache_dir=str(work))
    # What a foreign data set makes its reader raise comes in all types, and is the data set's fault or the network's.
    except Exception as error:
        do = f"write {_EXPECTED} with names from its page, or download its files and name them under 'files'"
        raise download_error(str(reference), error, do) from error
    return {str(split): rows.data.table for split, rows in splits.items()}


def _write(reference: HubReference, table: pa.Table, path: Path) -> None:
    try:
        pq.write_table(table, path)
    except pa.ArrowException as error:
        raise UsageError(str(Problem(f"'{reference}' has columns that Parquet cannot hold: {error}"))) from error


def _malformed(ref: str, problem: str, do: str | None = None) -> UsageError:
    return UsageError(str(Problem(f"'{ref}': {problem}", expected=_EXPECTED, do=do)))
