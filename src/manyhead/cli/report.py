"""``manyhead report``: a run's report, written anew; several runs side by side; figures and tables for papers."""

from pathlib import Path
from typing import Annotated

import typer

from manyhead.cli.options import Json, Quiet
from manyhead.cli.output import speaking

EXAMPLES = (
    "manyhead report runs/cs224n",
    "manyhead report runs/*",
    "manyhead report runs/shared runs/sst-alone --out both.html",
    "manyhead report runs/cs224n --figures figures --tables tables",
)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", show_default=False, help="Run folders.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="One page of all runs, side by side, in place of RUN/report.html."),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Also write each chart there, as PNG and SVG.")
    ] = None,
    tables: Annotated[
        Path | None, typer.Option("--tables", metavar="DIR", help="Also write each table there, as CSV and LaTeX.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write RUN/report.html anew and print its path.

    A run that was stopped is reported as far as it went.
    """
    with speaking(as_json=as_json, quiet=quiet) as output:
        written = write_reports(runs, out=out, figures=figures, tables=tables)
        if as_json:
            output.document({kind: [str(path) for path in paths] for kind, paths in written.items()})
        else:
            output.show(*(str(path) for path in written["reports"]))
            for kind, folder in (("figures", figures), ("tables", tables)):
                if folder is not None:
                    output.note(f"{len(written[kind])} files in {folder}")


def write_reports(
    runs: list[Path], *, out: Path | None = None, figures: Path | None = None, tables: Path | None = None
) -> dict[str, list[Path]]:
    """Writes the page of each run, or, to ``out``, one of all; and figures and tables of all.

    All runs are looked at before anything is written. Returns the paths under reports, figures and tables.
    """
    from manyhead.report.artifacts import write_figures, write_tables
    from manyhead.report.content import gather_report
    from manyhead.report.page import write_page, write_report

    report = gather_report(runs)
    if out is not None:
        pages = [write_page(report, out)]
    elif len(runs) == 1:
        pages = [write_page(report, runs[0] / "report.html")]
    else:
        pages = [write_report(run) for run in runs]
    return {
        "reports": pages,
        "figures": [] if figures is None else write_figures(report, figures),
        "tables": [] if tables is None else write_tables(report, tables),
    }
