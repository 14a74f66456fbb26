"""`Request`: what a user wants scored, and the two ways to do it: into a stream, or into files."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from manyhead.data.table import missing_file
from manyhead.errors import DataError, UsageError
from manyhead.inference.bulk.account import Account
from manyhead.inference.bulk.columns import Columns
from manyhead.inference.bulk.formats import FormatName, Writer, writer_of
from manyhead.inference.bulk.job import Outputs, Sink, environment_of, input_digests, run_job, score
from manyhead.inference.bulk.part_file import PartFile
from manyhead.inference.bulk.rows import Input, open_file, open_stream, tasks_for
from manyhead.inference.bulk.scorer import Chunk, Scorer
from manyhead.inference.bulk.shards import Shard, form_of, shards_of
from manyhead.inference.bulk.work import Work
from manyhead.inference.predictor import Model
from manyhead.recipe.schema import Task

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is wanted.

    ``tasks`` are those of the model, by name; ``named`` the ones to predict, or none for all whose columns are there.
    ``source`` is a file, a folder of files, or a stream. ``form`` is the output's format, None for that of its name.
    Rows without a prediction are listed in ``rejected``, if given. ``note`` is told of what happens on the way, and
    ``tick`` of rows that are done.
    """

    tasks: Mapping[str, Task]
    named: Sequence[str]
    source: Path | BinaryIO
    form: FormatName | None
    rejected: Path | None
    load: Callable[[], Model]
    note: Say
    tick: Callable[[int], None]

    @property
    def drops(self) -> bool:
        """Whether rows that no task predicts are left out of the output."""
        return self.rejected is not None

    def open(self, source: Path | BinaryIO) -> Input:
        """The rows of a file or stream, read as the first of the tasks says."""
        task = self.tasks[self.named[0]] if self.named else next(iter(self.tasks.values()))
        return open_file(source, task) if isinstance(source, Path) else open_stream(source, task.charset)

    def columns(self, tasks: Mapping[str, Task], source: Input) -> Columns:
        """The columns that are written."""
        return Columns(tasks, source, drop=self.drops)

    def scorer(self, tasks: Mapping[str, Task]) -> Scorer:
        """The model, loaded for ``tasks``."""
        return Scorer(self.load(), tasks, self.tick)


class Collected:
    """In place of a writer and of where it writes to: keeps the rows as what JSON can hold."""

    def __init__(self) -> None:
        self.columns: Columns | None = None
        self.rows_found: list[dict[str, Any]] = []

    def head(self) -> bytes:
        """Nothing."""
        return b""

    def rows(self, chunk: Chunk) -> bytes:
        """Keeps them."""
        assert self.columns is not None
        self.rows_found += self.columns.objects(chunk)
        return b""

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def write(self, data: bytes, /) -> None:
        """Nothing comes."""

    def flush(self) -> None:
        """Nothing waits."""


def to_stream(request: Request, sink: Sink | Collected) -> Account:
    """Writes to ``sink``, chunk by chunk. Raises `UsageError` for what cannot be written so."""
    if isinstance(request.source, Path) and request.source.is_dir():
        raise UsageError(f"{request.source}: is a folder; expected --output FOLDER for the predictions of its files")
    form = request.form or "csv"
    if form == "parquet" and not isinstance(sink, Collected):
        raise UsageError("parquet cannot be written to a pipe: its end says what is where; expected --output FILE")
    source = request.open(request.source)
    tasks = tasks_for(source, request.tasks, request.named)
    columns = request.columns(tasks, source)
    if isinstance(sink, Collected):
        sink.columns = columns
    writer: Writer = sink if isinstance(sink, Collected) else writer_of(form, columns, tasks)
    if form != "cs224n":
        _tell_renamed([columns], request.note)
    scorer = request.scorer(tasks)
    account = Account(list(tasks))
    with ExitStack() as stack:
        apart = None if request.rejected is None else stack.enter_context(closing(PartFile(request.rejected)))
        # A thread that waits for a pipe cannot be stopped.
        read_ahead = isinstance(request.source, Path)
        score(scorer, columns, writer, Outputs(sink, apart, account), read_ahead=read_ahead)
    return account


def to_files(request: Request, target: Path, facts: Mapping[str, Any], *, resume: bool) -> Account:
    """Writes ``target``, a file, or a folder where the source is one: it is there whole or not at all.

    ``facts`` say what is done; a job that was stopped goes on, with ``resume``, where they are the same. Raises
    `UsageError` where it cannot.
    """
    source = request.source
    resumable = isinstance(source, Path) and request.form != "cs224n"
    if resume and not resumable:
        what = "the cs224n format is written at once" if isinstance(source, Path) else "a pipe cannot be read again"
        raise UsageError(f"--resume: {what}; expected --input FILE, and csv, tsv, jsonl or parquet")
    if isinstance(source, Path) and not source.exists():
        raise DataError([missing_file(source)])
    is_folder = isinstance(source, Path) and source.is_dir()
    if not is_folder and target.is_dir():
        raise UsageError(f"{target} is a folder; expected a file; choose another --output")
    if isinstance(source, Path):
        shards = shards_of(source, target, request.form)
    else:
        shards = [Shard(Path("stdin"), target.name, request.form or form_of(target))]
    work = Work(target, is_folder=is_folder, rejected=request.rejected, resumable=resumable)
    with work.opened(facts, resume=resume):
        if work.progress.is_done:
            work.publish()
            return Account(**work.progress.account)
        if is_folder and target.is_dir() and any(target.iterdir()):
            raise UsageError(f"{target}: the folder is not empty; choose another --output, or empty it")
        if resumable:
            work.same({"inputs": input_digests(shards)})
        if resume:
            request.note(_beginning(work, shards))
        try:
            return _run(request, work, shards)
        except KeyboardInterrupt:
            if work.is_left:
                request.note(f"{work.path} has what is done; the same command with --resume goes on with it")
            raise


def _run(request: Request, work: Work, shards: Sequence[Shard]) -> Account:
    """Looks at all files before the first is scored."""

    def opened(shard: Shard) -> Input:
        return request.open(shard.source if isinstance(request.source, Path) else request.source)

    first = opened(shards[0])
    tasks = tasks_for(first, request.tasks, request.named)
    checked: list[Columns] = []
    for shard in shards:
        source = first if shard is shards[0] else opened(shard)
        source.places([column for task in tasks.values() for column in task.text])
        columns = request.columns(tasks, source)
        writer_of(shard.form, columns, tasks)
        if shard.form != "cs224n":
            checked.append(columns)
    _tell_renamed(checked, request.note)
    scorer = request.scorer(tasks)
    if changed := work.changed(environment_of(scorer.model)):
        request.note(f"not bit-exact: {', '.join(changed)}")
    # A stream can be opened once.
    ready = {shards[0]: first}
    return run_job(work, shards, scorer, lambda shard: ready.pop(shard, None) or opened(shard), drop=request.drops)


def _beginning(work: Work, shards: Sequence[Shard]) -> str:
    done, rows = work.progress.shard, work.progress.rows
    if not done and not rows:
        return f"{work.path}: nothing to go on with; starts at the first row"
    files = f"{done:,} of {len(shards):,} files and " if len(shards) > 1 else ""
    return f"{work.path}: goes on behind {files}{rows:,} rows"


def _tell_renamed(found: Sequence[Columns], note: Say) -> None:
    told: set[str] = set()
    for columns in found:
        pairs = [f"'{before}' is now '{after}'" for before, after in columns.renamed()]
        renamed = ", ".join(pair for pair in pairs if pair not in told)
        told.update(pairs)
        if renamed:
            note(f"{columns.source.name}: columns named as what is predicted are kept by other names: {renamed}")
