"""Which files are read, and by which names they are written."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from manyhead.errors import UsageError
from manyhead.inference.bulk.formats import ENDINGS, GZIP, FormatName, format_of, is_gzip

_READ_ENDINGS = (*ENDINGS, ".arrow", ".feather", ".txt")


@dataclass(frozen=True)
class Shard:
    """A file to read; what is written of it is called ``name`` and is of ``form``."""

    source: Path
    name: str
    form: FormatName


def shards_of(source: Path, target: Path, form: FormatName | None) -> list[Shard]:
    """The file ``source``, written to ``target``; or the files in the folder ``source``, sorted by name.

    Those of a folder keep their names; with ``form`` they get its ending. Hidden files, and those whose names begin
    with ``_`` as the marks of other tools do, are no shards. Raises `UsageError` for what cannot be read or written so.
    """
    if not source.is_dir():
        return [Shard(source, target.name, form or form_of(target))]
    _check_folders(source, target)
    paths = sorted(path for path in source.iterdir() if not path.name.startswith((".", "_")))
    if not paths:
        raise UsageError(f"{source}: the folder holds no files; expected shards")
    if folders := [path.name for path in paths if not path.is_file()]:
        raise UsageError(f"{source}: {folders[0]} is no file; expected a folder of files alone; name one of them")
    found = [_shard(path, form) for path in paths]
    twice = [name for name, times in Counter(shard.name for shard in found).items() if times > 1]
    if twice:
        raise UsageError(f"{source}: several of its files would be written as {twice[0]}; give them other names")
    return found


def form_of(path: Path) -> FormatName:
    """The format of an output by its name's ending; CSV where it has none. Raises `UsageError` for other endings."""
    if found := format_of(path):
        return found
    if not path.suffix or path.name == path.suffix:
        return "csv"
    raise UsageError(
        f"{path}: no format has this ending; expected .csv, .tsv, .jsonl (also with .gz) or .parquet; "
        "name another --output, or its --format"
    )


def _shard(path: Path, form: FormatName | None) -> Shard:
    if form is None:
        return Shard(path, path.name, form_of(path))
    packed = GZIP if is_gzip(path) and form != "parquet" else ""
    stem = path.name[: -len(GZIP)] if is_gzip(path) else path.name
    ending = Path(stem).suffix
    stem = stem.removesuffix(ending) if ending.lower() in _READ_ENDINGS else stem
    return Shard(path, f"{stem}.{form}{packed}", form)


def _check_folders(source: Path, target: Path) -> None:
    inside, outside = target.resolve(), source.resolve()
    if inside == outside or outside in inside.parents:
        raise UsageError(f"{target}: is in the folder of the input; choose an --output beside it")
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target}: is a file; expected a folder, as --input is one; choose another --output")
