"""The page itself: the template, filled with what the runs say, and the file it becomes."""

import os
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from manyhead.errors import UsageError, WriteError
from manyhead.evaluation.scored import Scored
from manyhead.report.examples import data_block, gather_examples
from manyhead.report.read import RUN_FILES, read_run
from manyhead.report.task_part import MAX_CLASSES
from manyhead.report.text import decimal, percent, visible
from manyhead.report.verdict import STANDINGS
from manyhead.report.view import RunPart, run_part

_SCRIPT = files("manyhead.report").joinpath("template", "examples.js").read_text(encoding="utf-8").strip()

def build_report(run_dirs: Sequence[Path]) -> str:
    """The report of one run, or of several side by side, as one HTML document that needs nothing else.

    Runs that were stopped early, or lost files, are reported as far as they go, and the page says what is missing.

    Raises:
        UsageError: No run is given, or a folder holds none of a run's files.
    """
    folders = [Path(folder) for folder in run_dirs]
    strange = [folder for folder in folders if not any((folder / name).is_file() for name in RUN_FILES)]
    if strange or not folders:
        lines = [f"{folder}: not a run folder; expected one that holds {', '.join(RUN_FILES)}" for folder in strange]
        raise UsageError("\n".join(lines) or "no run is given; name one run folder or several")
    runs = [run_part(read_run(folder)) for folder in folders]
    examples = gather_examples(_predictions(runs))
    return _ENVIRONMENT.get_template("page.html.j2").render(
        runs=runs,
        standings=STANDINGS,
        tasks=list(dict.fromkeys(task.name for run in runs for task in run.tasks)),
        examples=examples,
        example_places={task.name: place for place, task in enumerate(examples)},
        data=data_block(examples),
        script=Markup(_SCRIPT),
        script_hash=b64encode(sha256(_SCRIPT.encode()).digest()).decode(),
    )


def _predictions(runs: Sequence[RunPart]) -> dict[str, dict[str, Scored]]:
    """Task to the predictions of each run, by its name; equal names are told apart by a number."""
    found: dict[str, dict[str, Scored]] = {}
    for place, run in enumerate(runs, 1):
        for task in run.tasks:
            if task.scored is not None and len(task.scored.labels) <= MAX_CLASSES:
                of_task = found.setdefault(task.name, {})
                of_task[f"{run.name} ({place})" if run.name in of_task else run.name] = task.scored
    return found


def write_report(run: Path) -> Path:
    """Write RUN/report.html, replacing an older one in a single rename, and return its path.

    Raises:
        UsageError: ``run`` is not a run folder.
        WriteError: The file could not be written.
    """
    page = build_report([run])
    path = Path(run) / "report.html"
    partial = path.with_name(".report.html.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise WriteError(f"could not write {path}: {error}") from error
    return path


def _seen(value: object) -> object:
    """Any text on its way into the page, with characters that could reorder, hide or break it spelled out."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_ENVIRONMENT = Environment(
    loader=PackageLoader("manyhead.report", "template"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_seen,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(decimal=decimal, count="{:,}".format, percent=percent)
