"""``manyhead track``: a run's log, written into a tracker."""

from pathlib import Path
from typing import Annotated

import typer

from manyhead.cli.options import Json, Quiet
from manyhead.cli.output import speaking

EXAMPLES = (
    "manyhead track runs/cs224n --to tensorboard",
    "manyhead track runs/cs224n --to '{kind: wandb, mode: online}'",
)


def track(
    run: Annotated[Path, typer.Argument(metavar="RUN", show_default=False, help="A run folder, finished or not.")],
    *,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="TRACKER",
            show_default=False,
            help="tensorboard, wandb, mlflow or trackio; or {kind: NAME, ...} with options, as in a recipe.",
        ),
    ],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a run's metrics into a tracker, such as TensorBoard."""
    from manyhead.tracking.replay import track_run

    with speaking(as_json=as_json, quiet=quiet) as output:
        tracked = track_run(run, to)
        if as_json:
            output.document(tracked.as_dict())
        elif not quiet:
            output.show(f"{tracked.tracker}: {tracked.records:,} records of {run}, which is {tracked.status}")
