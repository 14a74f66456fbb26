"""The texts on which an export is compared: dev rows where there are some, and a few of our own that are awkward."""

import csv
from itertools import islice
from pathlib import Path

from manyhead.errors import UsageError
from manyhead.export.source import Texts
from manyhead.recipe.schema import Recipe, Task

OWN = (
    "The waiter was kind, but we left hungry and a little cross.",
    "How do I keep basil alive through the winter?",
    "Is there a way to make basil last until spring?",
    "A man in a red coat is carrying a ladder across the street.",
    "!?",
    "Größe, naïve café, 東京 and 👍🏽: all in one line\twith a tab",
    "unaffordability " * 40 + "and so on, " * 60,
    "x",
)
"""Single texts; each makes a pair with the one behind it."""


def reference_texts(run: Path, recipe: Recipe, task: str, rows: int | None, *, read_data: bool = False) -> Texts:
    """Up to ``rows`` (None: all) dev rows, and `OWN`, which are in no data.

    The rows are those that the run at ``run`` kept, or, with ``read_data``, those of the recipe's dev file. Raises
    `DataError` where that cannot be used.
    """
    declared = recipe.tasks[task]
    if read_data:
        dev = _read(recipe, task, rows)
    else:
        dev = _predicted(run / "predictions" / f"{task}.dev.csv", declared)[:rows]
    return [*dev, *own_texts(declared)]


def own_texts(task: Task) -> Texts:
    """`OWN` as texts or pairs of ``task``."""
    if not task.is_pair:
        return [("",), *((text,) for text in OWN)]
    return list(zip(OWN, (*OWN[1:], OWN[0]), strict=True))


def _read(recipe: Recipe, task: str, rows: int | None) -> Texts:
    from manyhead.data.examples import read_examples, reference_of
    from manyhead.data.resolve import resolve_files

    reference = reference_of(recipe.tasks[task], "dev")
    if reference is None:
        raise UsageError(f"tasks.{task}.files.dev: there is none; expected a dev file; leave --data-dir out")
    path = resolve_files(recipe)(reference)
    examples = read_examples(task, recipe.tasks[task], "dev", path, seed=recipe.seed)
    # A pipeline of transformers takes a pair with an empty second text for a single one.
    return list(islice((each.texts for each in examples if all(each.texts)), rows))


def _predicted(path: Path, task: Task) -> Texts:
    """The texts in a run's file of predictions; none where there is no such file, or it holds none."""
    names = ["text_1", "text_2"] if task.is_pair else ["text"]
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if not set(names) <= set(rows.fieldnames or ()):
            return []
        return [texts for row in rows if all(texts := tuple(row[name] for name in names))]
