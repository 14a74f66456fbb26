"""``manyhead study``: many runs, one table."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from manyhead.cli.options import DataDir, Json, Overrides, Quiet, listed
from manyhead.cli.output import speaking, table
from manyhead.cli.training import command_line
from manyhead.errors import StoppedError

EXAMPLES = (
    "manyhead study s3 --budget small --data-dir data/cs224n",
    "manyhead study my-study.yaml --seeds 3 --jobs 2 --out runs/studies/mine",
    "manyhead study my.yaml --set 'grid={stages.0.epochs: [1, 2, 4]}'",
    "manyhead study my.yaml --seeds 5",
    "",
    "A study's file:",
    "  study: 1",
    "  name: mine",
    "  baseline: first        # the row that differences are taken to",
    "  seeds: 3",
    "  rows:",
    "    - {recipe: my.yaml, name: first}",
    "    - {recipe: my.yaml, name: short, set: {stages.0.epochs: 1}}",
    "    - {name: single, row: {a: a.yaml, b: b.yaml}}  # a run for each task",
)

BudgetName = Literal["smoke", "small", "full"]


def study(
    source: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            show_default=False,
            help="A shipped study (s1, s2, ...), a study's file, or a recipe: each point of its grid, or trial of its "
            "search, is a row.",
        ),
    ],
    *,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", metavar="N", min=1, help="Seeds of each row: the recipe's, and those after."),
    ] = None,
    budget: Annotated[
        BudgetName,
        typer.Option(
            "--budget",
            help="full: recipes as they are. small: some thousand examples a run, the embedded encoder, higher rates. "
            "smoke: a few steps. The table says what was cut.",
        ),
    ] = "full",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of the study; runs/studies/NAME-BUDGET where left out."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", min=1, help="Runs at a time; they share the cores.")] = 1,
    keep_models: Annotated[
        bool,
        typer.Option(
            "--keep-models", help="Keep the model of each run. Scores, logs, predictions and reports always stay."
        ),
    ] = False,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run recipes, seeds or points of a grid; print one table.

    The scores stand beside the published figures, where there are any, and beside the difference to a baseline.

    Called again, it goes on where it was stopped: finished runs are not run again, a half-done one resumes. Runs that
    fail are shown as such; the others go on. Ends with 3 if a run diverged, 2 if one failed otherwise.
    """
    from manyhead.studies import run_study
    from manyhead.studies.table import footer_lines, header_lines, shown_rows

    options = {
        "seeds": seeds,
        "budget": budget,
        "out": out,
        "jobs": jobs if jobs > 1 else None,
        "keep-models": keep_models,
        "data-dir": data_dir,
        "set": listed(overrides),
    }
    command = command_line("study", source, **options)
    with speaking(as_json=as_json, quiet=quiet) as output:
        try:
            result = run_study(
                source,
                seeds=seeds,
                budget=budget,
                out=out,
                jobs=jobs,
                data_dir=data_dir,
                overrides=listed(overrides),
                keep_models=keep_models,
                command=command,
                tell=output.note,
            )
        except StoppedError as error:
            raise StoppedError(f"{error}\n  {shlex.join(command)}", error.exit_code - 128) from None
        if as_json:
            output.document(result.document)
        else:
            columns, rows = shown_rows(result.document)
            output.show(*header_lines(result.document), "", table(columns, rows), "", *footer_lines(result.document))
            output.note("", f"written: {result.path}/table.md, table.csv, table.json")
    if result.exit_code:
        raise typer.Exit(result.exit_code)
