"""``manyhead report``: a run's report, written anew."""

from pathlib import Path
from typing import Annotated

import typer

from manyhead.cli.options import Json, Quiet
from manyhead.cli.output import speaking

EXAMPLES = ("manyhead report runs/cs224n", "manyhead report runs/*")


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", show_default=False, help="Run folders.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write RUN/report.html anew and print its path."""
    with speaking(as_json=as_json, quiet=quiet) as output:
        paths = write_reports(runs)
        if as_json:
            output.document({"reports": [str(path) for path in paths]})
        else:
            output.show(*map(str, paths))


def write_reports(runs: list[Path]) -> list[Path]:
    """Writes the report of each run; all runs are looked at before the first is written."""
    from manyhead.report import build_report, write_report

    build_report(runs)
    return [write_report(run) for run in runs]
