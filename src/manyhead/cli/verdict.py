"""``manyhead verdict``: one shared model, or one for each task?"""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from manyhead.cli.options import DataDir, Json, Overrides, Quiet, RecipeName, listed
from manyhead.cli.output import speaking, table
from manyhead.cli.training import command_line
from manyhead.errors import StoppedError, UsageError

EXAMPLES = (
    "manyhead verdict my.yaml",
    "manyhead verdict cs224n-cpu --examples 20000 --data-dir data/cs224n --jobs 2",
    "manyhead verdict my.yaml --seeds 5 --equal run --out runs/verdicts/harder",
    "manyhead verdict my.yaml --json | jq .sentence",
)

Equal = Literal["task", "run"]


def verdict(
    recipe: RecipeName,
    *,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, help="Seeds of each side: the recipe's, and those after.")
    ] = 3,
    examples: Annotated[
        int | None,
        typer.Option(
            "--examples", metavar="N", min=1, help="Most training examples that the shared run sees; all if left out."
        ),
    ] = None,
    equal: Annotated[
        Equal,
        typer.Option(
            "--equal",
            help="task: a single-task run sees as many examples of its task as the shared run does, so that all of "
            "them cost what the shared one costs. run: it sees as many as the shared run does of all tasks.",
        ),
    ] = "task",
    tune: Annotated[
        str,
        typer.Option(
            "--tune",
            metavar="F,F",
            help="Factors on the learning rates, tried at the first seed on both sides.",
        ),
    ] = "0.5,1,2",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of the verdict; runs/verdicts/NAME where left out."),
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
    """Train a recipe and each task alone: did sharing help?

    Both sides get equal budgets, the same seeds, and learning rates tuned by equally many trials. One half of dev picks
    checkpoints and rates, the other half is scored. The page says for each task: helped, hurt, or no evidence, and
    what it would take to tell.

    Called again, it goes on where it was stopped: finished runs are not run again. Ends with 3 if a run diverged, 2 if
    one failed otherwise.
    """
    from manyhead.studies.verdict import run_verdict
    from manyhead.studies.verdict.document import cost_rows, how_lines, score_rows, sentences

    options = {
        "seeds": seeds if seeds != 3 else None,
        "examples": examples,
        "equal": equal if equal != "task" else None,
        "tune": tune if tune != "0.5,1,2" else None,
        "out": out,
        "jobs": jobs if jobs > 1 else None,
        "keep-models": keep_models,
        "data-dir": data_dir,
        "set": listed(overrides),
    }
    command = command_line("verdict", recipe, **options)
    with speaking(as_json=as_json, quiet=quiet) as output:
        try:
            result = run_verdict(
                recipe,
                seeds=seeds,
                examples=examples,
                equal=equal,
                factors=factors_of(tune),
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
            columns, rows = score_rows(result.document)
            output.show(
                result.document["sentence"], "", table(columns, rows, left=2), "", *sentences(result.document), ""
            )
            columns, rows = cost_rows(result.document)
            output.show(table(columns, rows), "", *how_lines(result.document))
            output.note("", f"written: {result.path}/verdict.html, verdict.md, verdict.json")
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def factors_of(text: str) -> list[float]:
    """The factors that ``--tune`` names. Raises `UsageError` for others than positive numbers, each once."""
    try:
        factors = [float(part) for part in text.split(",")]
    except ValueError:
        factors = []
    if not factors or not all(0 < factor < float("inf") for factor in factors) or len({*factors}) < len(factors):
        raise UsageError(f"--tune: '{text}'; expected positive numbers, each once, such as 0.5,1,2; 1 tunes nothing")
    return factors
