"""The texts of rows that have been read, out of the file that they came from."""

from collections.abc import Iterator
from pathlib import Path

from manyhead.data.examples import read_examples, reference_of
from manyhead.data.resolve import resolve_files
from manyhead.data.task_data import TaskData
from manyhead.errors import DataError, ManyheadError
from manyhead.files import sha256_of
from manyhead.recipe.schema import Recipe, Split


def texts_of(recipe: Recipe, task: str, split: Split, data: TaskData) -> Iterator[tuple[str, ...]] | None:
    """The texts of each row of ``data``, in order; None where the file is gone or no longer what was read."""
    reference = reference_of(recipe.tasks[task], split)
    assert reference is not None
    try:
        path = resolve_files(recipe)(reference)
        if sha256_of(path) != data.data_hash:
            return None
        return _texts(recipe, task, split, path, data)
    except (OSError, DataError, ManyheadError):
        return None


def _texts(recipe: Recipe, task: str, split: Split, path: Path, data: TaskData) -> Iterator[tuple[str, ...]]:
    examples = read_examples(task, recipe.tasks[task], split, path, seed=recipe.seed)
    wanted = iter(data.lines.tolist())
    line = next(wanted, None)
    for example in examples:
        if line is None:
            return
        if example.line == line:
            yield example.texts
            line = next(wanted, None)
