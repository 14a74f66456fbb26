"""The page itself: the template, filled with what the runs say, and the file it becomes."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from manyhead.errors import UsageError, WriteError
from manyhead.report.read import RUN_FILES, read_run
from manyhead.report.view import run_part

_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Characters that reorder or hide text, or may stand in no HTML file."""


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
    tasks = list(dict.fromkeys(task.name for run in runs for task in run.tasks))
    return _ENVIRONMENT.get_template("page.html.j2").render(runs=runs, tasks=tasks)


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


def _visible(value: object) -> object:
    """Any text on its way into the page, with characters that could reorder, hide or break it spelled out."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _UNSEEN.sub(lambda found: f"\\u{ord(found.group()):04x}", value)


def _decimal(value: float | None, sign: str = "-") -> str:
    """Three decimals, with a true minus; a dash where there is no value."""
    return "\u2013" if value is None else f"{value:{sign}.3f}".replace("-", "\u2212")


_ENVIRONMENT = Environment(
    loader=PackageLoader("manyhead.report", "template"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_visible,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(decimal=_decimal, count="{:,}".format)
