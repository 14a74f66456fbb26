"""Scoring whole files: into a stream as it comes, or into files that are there whole or not at all."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from manyhead.errors import DataError, UsageError
from manyhead.faults import at
from manyhead.files import MANIFEST, sha256s_of
from manyhead.inference.bulk.account import Account, rejected_lines
from manyhead.inference.bulk.columns import Columns
from manyhead.inference.bulk.formats import Writer, is_gzip, writer_of
from manyhead.inference.bulk.part_file import PartFile
from manyhead.inference.bulk.rows import Input
from manyhead.inference.bulk.scorer import Scorer
from manyhead.inference.bulk.shards import Shard
from manyhead.inference.bulk.work import Progress, Work
from manyhead.inference.model_folder import model_in, weights_of
from manyhead.inference.predictor import Model

_VERSIONS = ("manyhead", "torch", "tokenizers")


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> object:
        """Takes them."""
        ...

    def flush(self) -> object:
        """Passes on what waits."""
        ...


S = TypeVar("S", bound=Sink)


@dataclass(frozen=True)
class Outputs(Generic[S]):
    """Where rows go, and, unless None, the list of those that are rejected; ``account`` counts all."""

    rows: S
    rejected: PartFile | None
    account: Account


def score(
    scorer: Scorer,
    columns: Columns,
    writer: Writer,
    outputs: "Outputs[S]",
    *,
    skip: int = 0,
    read_ahead: bool = True,
    commit: Callable[[], None] = lambda: None,
) -> None:
    """Writes what is predicted for the rows of the input of ``columns`` behind the first ``skip``, chunk by chunk.

    ``commit`` is called behind each chunk that a later job can begin after.
    """
    source, rows, rejected = columns.source, outputs.rows, outputs.rejected
    if not skip:
        rows.write(writer.head())
    for chunk in scorer.chunks(source, skip=skip, read_ahead=read_ahead):
        rows.write(writer.rows(chunk))
        if rejected is not None:
            rejected.write("".join(rejected_lines(source, columns.unique, chunk)).encode())
            rejected.flush()
        outputs.account.add(source, chunk)
        rows.flush()
        if chunk.is_whole:
            commit()
    rows.write(writer.end())
    rows.flush()
    outputs.account.end(source)


def run_job(
    work: Work, shards: Sequence[Shard], scorer: Scorer, open_shard: Callable[[Shard], Input], *, drop: bool
) -> Account:
    """Scores the files that ``work`` has not finished yet, and gives the output its name.

    With ``drop`` rows that no task predicted are in the list of rejected rows alone. Raises `UsageError` where a file
    cannot be read on; what was scored before that is kept in the folder of the job.
    """
    account = Account(**work.progress.account) if work.progress.account else Account(list(scorer.tasks))
    rejected = work.open_rejected()
    try:
        for number in range(work.progress.shard, len(shards)):
            shard = shards[number]
            columns = Columns(scorer.tasks, open_shard(shard), drop=drop)
            before = account.rows - work.progress.rows
            try:
                _run_shard(work, shard, scorer, columns, Outputs(_open_rows(work, shard), rejected, account))
            except DataError as error:
                raise _unreadable(error, work, shard, account.rows - before) from None
            at("bulk: a file is finished", shard)
            others = 0 if rejected is None else rejected.sync()
            work.commit(Progress(number + 1, 0, 0, others, account.values()))
    finally:
        if rejected is not None:
            rejected.close()
    work.commit(replace(work.progress, is_done=True))
    work.publish()
    return account


def _open_rows(work: Work, shard: Shard) -> PartFile:
    if shard.form == "parquet":
        return work.open_spool()
    return work.open_rows(shard.name, packed=is_gzip(Path(shard.name)))


def _run_shard(work: Work, shard: Shard, scorer: Scorer, columns: Columns, outputs: "Outputs[PartFile]") -> None:
    """Scores what is left of a file. Raises `DataError` where it cannot be read on, once what was scored is there."""
    rows, rejected, account = outputs.rows, outputs.rejected, outputs.account
    began = work.progress
    before = account.rows - began.rows

    def commit() -> None:
        at("bulk: rows written", shard)
        sizes = {"bytes": rows.sync(), "rejected_bytes": 0 if rejected is None else rejected.sync()}
        work.commit(replace(began, rows=account.rows - before, account=account.values(), **sizes))

    writer = writer_of(shard.form, columns, scorer.tasks)
    # What is not resumable may be a pipe, and a thread that waits for one cannot be stopped.
    ahead, skip = work.resumable, began.rows
    problem: DataError | None = None
    with closing(rows):
        try:
            score(scorer, columns, writer, outputs, skip=skip, read_ahead=ahead, commit=commit)
        except DataError as error:
            problem = error
        rows.sync()
    if shard.form == "parquet":
        from manyhead.inference.bulk.parquet import write_parquet

        work.convert_spool(shard.name, write_parquet)
    if problem is not None:
        raise problem


def _unreadable(error: DataError, work: Work, shard: Shard, rows: int) -> UsageError:
    if not work.resumable or not rows:
        return UsageError(str(error))
    work.commit(work.progress)
    return UsageError(f"{error}\nthe {rows:,} rows before that are scored: {work.finished(shard.name)}")


def model_digest(model: Path) -> str:
    """A digest of the files of a model or run, by the manifests that list theirs."""
    digest = hashlib.sha256()
    for folder in (model_in(model), weights_of(model).parent):
        path = folder / MANIFEST
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def input_digests(shards: Sequence[Shard]) -> Mapping[str, str]:
    """A digest of each file to read, by name."""
    paths = [shard.source for shard in shards]
    return dict(zip([path.name for path in paths], sha256s_of(paths), strict=True))


def environment_of(model: Model) -> dict[str, Any]:
    """What the last bits of predictions depend on."""
    hardware = model.hardware.describe()
    versions = {name: metadata.version(name) for name in _VERSIONS}
    return {name: hardware[name] for name in ("device_name", "precision", "threads")} | versions
