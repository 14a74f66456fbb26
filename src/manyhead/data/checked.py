"""What checks found, kept beside the token cache: the same files and settings are looked at once.

A report is a function of the files' bytes and of what the recipe says of them, and its name is their hash; so a
changed file is checked again. Reports with errors are not kept.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from pydantic import TypeAdapter

from manyhead.data.cache import default_cache_dir
from manyhead.data.check import DataReport, Place, check_data, placed
from manyhead.data.examples import Resolve, reference_of, resolver
from manyhead.errors import DataError
from manyhead.files import FileHashes, write_json
from manyhead.recipe.schema import SPLITS, Recipe

FORMAT = 1
"""Version of what checks find; part of each report's key."""

_FOLDER = "checks"
_OF_TRAINING = {
    *("pairing", "head", "head_from", "loss", "auxiliary"),
    *("target_cast", "class_weights", "label_smoothing", "metric"),
}
_REPORT = TypeAdapter(DataReport)


def checked_data(
    recipe: Recipe,
    *,
    place: Place | None = None,
    resolve: Resolve | None = None,
    hashes: FileHashes | None = None,
    cache_dir: Path | None = None,
) -> DataReport:
    """What `check_data` finds, which reads all rows only where these files and settings have not been checked before.

    ``hashes`` may know some of the files' already; ``cache_dir`` defaults to `default_cache_dir`.
    """
    resolve = resolve or resolver(Path(recipe.data_dir))
    hashes = hashes or FileHashes()
    try:
        key = _key(recipe, resolve, hashes)
    except (DataError, OSError):  # a file that cannot be read: it is told with all else that is wrong
        return check_data(recipe, place=place, resolve=resolve)
    path = (cache_dir or default_cache_dir()) / _FOLDER / f"{key}.json"
    report = _read(path)
    if report is None:
        report = check_data(recipe, resolve=resolve)
        with suppress(OSError, ValueError):  # a file that went, no room, odd text: next time it is checked again
            if not report.errors and _key(recipe, resolve, hashes) == key:
                _write(path, report)
    errors, warnings = ([placed(each, place) for each in some] for some in (report.errors, report.warnings))
    return replace(report, errors=errors, warnings=warnings)


def _key(recipe: Recipe, resolve: Resolve, hashes: FileHashes) -> str:
    """Hash of all that a report follows from."""
    share = None if recipe.select_on is None else recipe.select_on.dev
    made_from: list[object] = [FORMAT, metadata.version("manyhead"), recipe.seed, share]
    for name, task in recipe.tasks.items():
        exact = [task.label_cells, task.label_names, task.range]  # which the dump takes for others that look alike
        made_from.append([name, task.model_dump(mode="json", exclude=_OF_TRAINING), exact])
        for split in SPLITS:
            reference = reference_of(task, split)
            if reference is not None:
                path = resolve(reference)
                made_from.append([split, str(path), hashes(path)])
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


def _write(path: Path, report: DataReport) -> None:
    content = _REPORT.dump_json(report).decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"content": content, "sha256": hashlib.sha256(content.encode()).hexdigest()})


def _read(path: Path) -> DataReport | None:
    """The report that was kept; None where there is none, or it is not what was written."""
    try:
        kept = json.loads(path.read_bytes())
        content = str(kept["content"]).encode()
        return _REPORT.validate_json(content) if hashlib.sha256(content).hexdigest() == kept["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
