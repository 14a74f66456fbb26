"""``manyhead predict``: predictions for the rows of a file or of a pipe."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal

import typer

from manyhead.cli.options import Json, Overrides, Plugins, Precision, Quiet, RunOrModel, listed
from manyhead.cli.output import Output, speaking
from manyhead.cli.stored import Stored, find_model
from manyhead.errors import UsageError

if TYPE_CHECKING:
    from manyhead.cli.prediction_files import Chunk, Writer
    from manyhead.cli.rows import Input, InputRow
    from manyhead.inference.predictor import Model
    from manyhead.recipe.schema import Task

EXAMPLES = (
    "manyhead predict runs/cs224n --task sst --input new.csv --output out.csv",
    "cat new.jsonl | manyhead predict runs/cs224n --task sst > out.csv",
    "manyhead predict runs/cs224n --task sst --input sst-test.csv --format cs224n",
)

CHUNK_ROWS = 4096
"""Rows that are predicted, written and flushed together."""

_SHOWN = 20

FormatName = Literal["csv", "jsonl", "cs224n"]


@dataclass
class Account:
    """What became of the rows: their number, and the first lines without a prediction."""

    rows: int = 0
    without: int = 0
    first: list[dict[str, object]] = field(default_factory=list[dict[str, object]])

    def add(self, chunk: "Chunk") -> None:
        """Counts a chunk."""
        self.rows += len(chunk.rows)
        for row, problem in zip(chunk.rows, chunk.problems, strict=True):
            if problem is not None:
                self.without += 1
                if len(self.first) < _SHOWN:
                    self.first.append({"line": row.line, "problem": problem})


def predict(
    model: RunOrModel,
    *,
    task: Annotated[str, typer.Option("--task", metavar="T", show_default=False, help="The task to predict.")],
    source: Annotated[
        str,
        typer.Option("--input", metavar="F", help="A table of any format; - is stdin: CSV with a header, or JSONL."),
    ] = "-",
    target: Annotated[
        Path | None, typer.Option("--output", metavar="F", help="File to write, or replace; stdout if left out.")
    ] = None,
    form: Annotated[
        FormatName | None,
        typer.Option(
            "--format",
            show_default=False,
            help="Of the output: csv (default), jsonl (default for F.jsonl), or the CS224N submission format.",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="D", help="Folder in which --input is looked for.")
    ] = None,
    precision: Precision = None,
    overrides: Overrides = None,
    plugins: Plugins = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict for the rows of a file or of a pipe.

    Writes the input's columns, then prediction, label, the probability of each label, and whether the text was cut for
    its length. An input column named as one of these is kept as input_NAME. All rows are kept, in order: one whose text
    is missing (null, or the row is broken) gets an empty prediction and a line on stderr. Empty texts are predicted.
    """
    with speaking(as_json=as_json, quiet=quiet) as output:
        _check_target(target)
        stored = find_model(
            model, plugins=listed(plugins), overrides=listed(overrides), data_dir=data_dir, precision=precision
        )
        rows = _open(source, stored.task(task), data_dir)
        rows.places(stored.task(task).text)
        form = _form(form, target, as_json=as_json)
        _check_columns(task, stored.task(task), rows, form, output)
        if as_json and target is None:
            from manyhead.cli.prediction_files import JsonRows

            collected = JsonRows(stored.task(task), rows)
            account = predict_rows(stored.load(), task, stored.task(task), rows, collected)
            output.document({**_document(task, account, None), "predictions": collected.rows})
        else:
            account = _write(stored, task, rows, target, form)
            if as_json:
                output.document(_document(task, account, target))
            elif target is not None:
                output.note(f"{account.rows:,} rows predicted: {target}")
        _complain(account, rows, output)


def predict_rows(
    model: "Model", name: str, task: "Task", rows: "Input", writer: "Writer", *, flush: "IO[str] | None" = None
) -> Account:
    """Predicts for all rows, chunk by chunk, into ``writer``; ``flush`` is flushed after each chunk."""
    account = Account()
    for chunk in predicted(model, name, task, rows):
        writer.add(chunk)
        account.add(chunk)
        if flush is not None:
            flush.flush()
    writer.finish()
    return account


def predicted(model: "Model", name: str, task: "Task", rows: "Input") -> "Iterator[Chunk]":
    """The rows with their predictions. A row that cannot be predicted does no harm to its neighbours."""
    from manyhead.cli.prediction_files import Chunk

    places = rows.places(task.text)
    each = iter(rows.rows)
    while chunk := list(islice(each, CHUNK_ROWS)):
        problems: list[str | None] = []
        texts: list[tuple[str, ...]] = []
        for row in chunk:
            found = _texts(row, places)
            problems.append(found if isinstance(found, str) else None)
            if not isinstance(found, str):
                texts.append(found)
        yield Chunk(chunk, problems, *model.predict_arrays(name, texts))


def _open(source: str, task: "Task", data_dir: Path | None) -> "Input":
    from manyhead.cli.rows import open_file, open_stream

    if source != "-":
        return open_file((data_dir or Path()) / source, task)
    if sys.stdin.isatty():
        raise UsageError("no input; expected --input FILE, or rows on stdin")
    return open_stream(sys.stdin.buffer, task.charset)


def _check_target(target: Path | None) -> None:
    """Raises `UsageError` where the output has no place, before anything is loaded for it."""
    if target is None:
        return
    if not target.parent.is_dir():
        raise UsageError(f"no folder {target.parent}; make it or choose another --output")
    if target.is_dir():
        raise UsageError(f"{target} is a folder; expected a file; choose another --output")


def _form(form: FormatName | None, target: Path | None, *, as_json: bool) -> FormatName:
    """The format of the output; the document of ``--json`` holds the rows that JSON lines would."""
    if target is None:
        return "jsonl" if as_json else form or "csv"
    return form or ("jsonl" if target.suffix == ".jsonl" else "csv")


def _check_columns(name: str, task: "Task", rows: "Input", form: FormatName, output: Output) -> None:
    """Says which columns get another name in the output. Raises `UsageError` where the format wants one not there."""
    from manyhead.cli.prediction_files import check_id, kept_columns

    if form == "cs224n":
        check_id(name, task, rows)
        return
    pairs = zip(rows.columns, kept_columns(task, rows), strict=True)
    renamed = [f"'{before}' is now '{after}'" for before, after in pairs if before != after]
    if renamed:
        output.note(f"{rows.name}: columns named as what is predicted are kept by other names: {', '.join(renamed)}")


def _write(stored: Stored, name: str, rows: "Input", target: Path | None, form: FormatName) -> Account:
    from manyhead.cli.prediction_files import WRITERS, opened

    task = stored.task(name)
    with opened(target) as file:
        model = stored.load()  # before the writer: it writes a header, and nothing is written where this fails
        writer = WRITERS[form](file, task, rows)
        return predict_rows(model, name, task, rows, writer, flush=file)


def _texts(row: "InputRow", places: list[int]) -> tuple[str, ...] | str:
    """The texts of a row, or why it has none. An empty text is one."""
    from manyhead.data.table import Nested

    if row.problem is not None:
        return row.problem
    cells = [row.cells[place] for place in places]
    if any(isinstance(cell, Nested) for cell in cells):
        return "the text is a list or an object"
    return "no text" if any(cell is None for cell in cells) else tuple(str(cell) for cell in cells)


def _document(task: str, account: Account, target: Path | None) -> dict[str, object]:
    return {
        "task": task,
        "rows": account.rows,
        "without_prediction": account.without,
        "first_without_prediction": account.first,
        "output": None if target is None else str(target),
    }


def _complain(account: Account, rows: "Input", output: Output) -> None:
    """Says on stderr what was not as it should be; it is no note, so it is said with -q too."""
    for each in account.first:
        output.error(f"{rows.name}:{each['line']}: {each['problem']}; its prediction is empty")
    if account.without > len(account.first):
        output.error(f"{rows.name}: {account.without - len(account.first):,} more rows without a prediction")
    if rows.replaced:
        output.error(f"{rows.name}: {rows.replaced:,} broken characters were replaced by U+FFFD")
    if rows.late:
        keys = ", ".join(f"'{key}' (line {line})" for key, line in rows.late.items())
        output.error(f"{rows.name}: left out keys that the first rows do not have: {keys}")
