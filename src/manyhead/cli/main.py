"""The command ``manyhead``: its verbs, and how errors end it."""

import contextlib
import io
import os
import sys
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from manyhead.cli import (
    affinity,
    check,
    compare,
    evaluate,
    export,
    init,
    predict,
    quickstart,
    recipes,
    report,
    study,
    track,
    train,
    verdict,
)
from manyhead.cli.options import examples
from manyhead.errors import ManyheadError

CLOSED_PIPE = 141
"""What a command ends with when nobody reads its output any more, as if SIGPIPE had ended it."""
INTERRUPTED = 130


class Commands(TyperGroup):
    """The verbs. Errors that a user can mend end them with their message and code, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the verb that was named."""
        try:
            return super().invoke(ctx)
        except ManyheadError as error:
            with contextlib.suppress(OSError):
                print(error, file=sys.stderr)
            code = error.exit_code
            _drop_what_cannot_be_written()
        except BrokenPipeError:
            _leave(sys.stdout)
            code = CLOSED_PIPE
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            code = INTERRUPTED
        raise typer.Exit(code)


app = typer.Typer(
    cls=Commands,
    name="manyhead",
    help="One BERT-family encoder, many text tasks: train, judge and ship a multi-task model.",
    epilog="\b\nStart here:\n  manyhead quickstart\n  manyhead init train.csv dev.csv --out recipe.yaml\n"
    "  manyhead COMMAND --help",
    no_args_is_help=True,
    # Plain help and plain errors: lines can be copied, and start-up is quick.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(f"manyhead {metadata.version('manyhead')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the command itself."""


for verb, lines in (
    (quickstart.quickstart, quickstart.EXAMPLES),
    (init.init, init.EXAMPLES),
    (train.train, train.EXAMPLES),
    (check.check, check.EXAMPLES),
    (evaluate.evaluate, evaluate.EXAMPLES),
    (predict.predict, predict.EXAMPLES),
    (export.export, export.EXAMPLES),
    (report.report, report.EXAMPLES),
    (compare.compare, compare.EXAMPLES),
    (study.study, study.EXAMPLES),
    (verdict.verdict, verdict.EXAMPLES),
    (affinity.affinity, affinity.EXAMPLES),
    (track.track, track.EXAMPLES),
):
    app.command(epilog=examples(*lines), no_args_is_help=verb is not quickstart.quickstart)(verb)
app.add_typer(recipes.app)


def main() -> None:
    """The console command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    app()


def _drop_what_cannot_be_written() -> None:
    """Python ends with a code of its own where something still cannot be written when it closes stdout and stderr."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _leave(stream)


def _leave(stream: TextIO) -> None:
    """Lets what is left in a stream's buffer go nowhere, so that Python does not complain at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
