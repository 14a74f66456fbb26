"""``manyhead predict``: predictions for the rows of files or of a pipe, of any number of tasks."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import typer

from manyhead.cli.options import Json, Overrides, Plugins, Precision, Quiet, RunOrModel, listed
from manyhead.cli.output import Output, speaking, written
from manyhead.cli.stored import Stored, find_model
from manyhead.errors import UsageError

if TYPE_CHECKING:
    from manyhead.inference.bulk.account import Account
    from manyhead.inference.bulk.job import Sink
    from manyhead.inference.bulk.request import Request

EXAMPLES = (
    "manyhead predict runs/cs224n --task sst --input new.csv --output out.csv",
    "cat new.jsonl | manyhead predict runs/cs224n --task sst > out.csv",
    "manyhead predict runs/cs224n --input pairs.parquet --output out.parquet",
    "manyhead predict runs/cs224n --input in/ --output out/ --rejected bad.jsonl",
    "manyhead predict runs/cs224n --input a.csv.gz --output b.csv.gz --resume",
    "manyhead predict runs/cs224n --task sst --input test.csv --format cs224n",
)

ALL = "all"
_NOTE_SECONDS = 10.0

FormatName = Literal["csv", "tsv", "jsonl", "parquet", "cs224n"]


def predict(
    model: RunOrModel,
    *,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="T",
            show_default=False,
            help="A task to predict; can be repeated. Left out, or all: every task whose text columns the input has.",
        ),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="F",
            help="A table of any format, or a folder of such; - is stdin: CSV with a header, or JSONL.",
        ),
    ] = "-",
    target: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="F",
            help="File to write, or replace; stdout if left out. Of a folder of files: a folder, for files of their "
            "names.",
        ),
    ] = None,
    form: Annotated[
        FormatName | None,
        typer.Option(
            "--format",
            show_default=False,
            help="Of the output; cs224n is the course's submission format. By the ending of --output if left out, "
            "else csv.",
        ),
    ] = None,
    rejected: Annotated[
        Path | None,
        typer.Option(
            "--rejected",
            metavar="F",
            show_default=False,
            help="File for rows without a prediction, as JSON lines with file, line and why. Those that no task could "
            "predict are then left out of the output.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an output that a stopped job left, where there is one.")
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="D", help="Folder in which --input is looked for.")
    ] = None,
    precision: Precision = None,
    overrides: Overrides = None,
    plugins: Plugins = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict for the rows of files or of a pipe.

    Writes the input's columns, then prediction, label, the probability of each label, and whether the text was cut for
    its length; of several tasks each of them as TASK_prediction and so on. An input column named as one of these is
    kept as input_NAME. All rows are kept, in order: one whose text is missing (null, or the row is broken) gets an
    empty prediction and a line on stderr. Empty texts are predicted.

    A job from files to files that is stopped leaves OUTPUT.part; the same command with --resume goes on with it, and
    ends with the bytes that it would have had.
    """
    with speaking(as_json=as_json, quiet=quiet) as output:
        _check_places(target, rejected)
        stored = find_model(
            model, plugins=listed(plugins), overrides=listed(overrides), data_dir=data_dir, precision=precision
        )
        named = [] if task in (None, [ALL]) else list(dict.fromkeys(listed(task)))
        for name in named:
            stored.task(name)
        from manyhead.inference.bulk.request import Collected, Request, to_files, to_stream

        path = None if source == "-" else (data_dir or Path()) / source
        request = Request(
            tasks=stored.recipe.tasks,
            named=named,
            source=path or _stdin(),
            form=form,
            rejected=rejected,
            load=stored.load,
            note=output.note,
            tick=_ticker(output),
        )
        if target is None or _is_special(target):
            if resume:
                raise UsageError("--resume goes on with a file; expected --output FILE")
            collected = Collected()
            if target is None and as_json:
                account = to_stream(request, collected)
            else:
                with _sink(target) as sink:
                    account = to_stream(request, sink)
            more = {"predictions": collected.rows_found} if target is None else {}
        else:
            account = to_files(request, target, _facts(stored, named, request, overrides), resume=resume)
            more = {}
            if not as_json:
                output.note(f"{account.rows:,} rows predicted: {target}")
        if as_json:
            output.document({**_document(account, target, rejected), **more})
        output.error(*account.lines(rejected))


def _stdin() -> BinaryIO:
    if sys.stdin.isatty():
        raise UsageError("no input; expected --input FILE, or rows on stdin")
    return sys.stdin.buffer


def _check_places(target: Path | None, rejected: Path | None) -> None:
    """Raises `UsageError` where an output has no place, before anything is loaded for it."""
    for option, path in (("--output", target), ("--rejected", rejected)):
        if path is not None and not path.parent.is_dir():
            raise UsageError(f"no folder {path.parent}; make it or choose another {option}")
    if rejected is not None and (rejected.is_dir() or rejected == target):
        raise UsageError(f"--rejected {rejected} is a folder, or the output itself; expected a file of its own")


def _is_special(target: Path) -> bool:
    """Whether it is a pipe or a device, which is written to as it is."""
    return target.exists() and not target.is_file() and not target.is_dir()


@contextmanager
def _sink(target: Path | None) -> "Generator[Sink]":
    from manyhead.files import writing

    if target is None:
        with written(sys.stdout):
            yield sys.stdout.buffer
        return
    with writing(str(target)), target.open("wb") as file:
        yield file


def _facts(stored: Stored, named: list[str], request: "Request", overrides: list[str] | None) -> dict[str, object]:
    """What a job that goes on has to have in common with the one that was stopped."""
    from manyhead.inference.bulk.job import model_digest

    return {
        "model": model_digest(stored.folder),
        "--task": named or [ALL],
        "--format": request.form or "by ending",
        "--rejected": "no" if request.rejected is None else "yes",
        "--set": listed(overrides),
        "--precision": stored.precision or "that of the model",
    }


def _document(account: "Account", target: Path | None, rejected: Path | None) -> dict[str, object]:
    tasks = account.tasks
    return {
        **({"task": tasks[0]} if len(tasks) == 1 else {}),
        "tasks": tasks,
        "rows": account.rows,
        "without_prediction": account.without,
        "first_without_prediction": account.first,
        "output": None if target is None else str(target),
        "rejected": None if rejected is None else str(rejected),
    }


def _ticker(output: Output) -> Callable[[int], None]:
    """Says from time to time how many rows are done."""
    done, began = 0, time.monotonic()
    said = began

    def tick(rows: int) -> None:
        nonlocal done, said
        done += rows
        now = time.monotonic()
        if now - said >= _NOTE_SECONDS:
            said = now
            output.note(f"{done:,} rows, {done / (now - began):,.0f} a second")

    return tick
