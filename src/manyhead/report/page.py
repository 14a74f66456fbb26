"""The page itself: the template, filled with what the runs say, and the file it becomes."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from manyhead.files import write_text, writing
from manyhead.report.content import MAX_PARTS, Report, gather_report
from manyhead.report.examples import TaskExamples, data_block, gather_examples
from manyhead.report.text import decimal, percent, visible
from manyhead.report.verdict import STANDINGS

MAX_BYTES = 2_900_000
"""Of a page."""
LEAST_EXAMPLES_BYTES = 600_000
"""Room that charts and tables leave for the examples; where they would not, fewer runs are shown with all parts."""

_SCRIPT = files("manyhead.report").joinpath("template", "examples.js").read_text(encoding="utf-8").strip()


def build_report(run_dirs: Sequence[Path]) -> str:
    """The report of one run, or of several side by side, as one HTML document that needs nothing else.

    Runs that were stopped early, or lost files, are reported as far as they go, and the page says what is missing.

    Raises:
        UsageError: No run is given, or a folder holds none of a run's files.
    """
    return render_page(gather_report(run_dirs))


def write_report(run: Path) -> Path:
    """Write RUN/report.html, replacing an older one in a single rename, and return its path.

    Raises:
        UsageError: ``run`` is not a run folder.
        WriteError: The file could not be written.
    """
    return write_page(gather_report([run]), Path(run) / "report.html")


def write_page(report: Report, path: Path) -> Path:
    """Write the page of ``report`` to ``path``, replacing an older one. Raises `WriteError` where it cannot be."""
    page = render_page(report)
    with writing(str(path)):
        write_text(path, page)
    return path


def render_page(report: Report) -> str:
    """The page, with as many rows of examples as fit."""
    parts = min(MAX_PARTS, len(report.runs))
    while (taken := len(_render(report, parts, []).encode())) > MAX_BYTES - LEAST_EXAMPLES_BYTES and parts > 1:
        parts -= 1
    examples = gather_examples(report.predictions(parts), budget_bytes=max(0, MAX_BYTES - taken))
    return _render(report, parts, examples)


def _render(report: Report, parts: int, examples: Sequence[TaskExamples]) -> str:
    return ENVIRONMENT.get_template("page.html.j2").render(
        report=report,
        runs=report.runs[:parts],
        standings=STANDINGS,
        examples=examples,
        example_places={task.name: place for place, task in enumerate(examples)},
        data=data_block(examples),
        script=_SCRIPT,
        script_hash=b64encode(sha256(_SCRIPT.encode()).digest()).decode(),
    )


def _seen(value: object) -> object:
    """Any text on its way into the page, with characters that could reorder, hide or break it spelled out."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


ENVIRONMENT = Environment(
    loader=PackageLoader("manyhead.report", "template"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_seen,
    trim_blocks=True,
    lstrip_blocks=True,
)
"""Templates of pages, in which any text is escaped and spelled out where it could not be seen."""
ENVIRONMENT.filters.update(decimal=decimal, count="{:,}".format, percent=percent)
