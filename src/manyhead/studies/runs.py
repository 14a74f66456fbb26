"""What a study consists of once it is planned: runs, and the rows that they give scores to."""

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from manyhead.recipe.layers import plain
from manyhead.recipe.schema import PLACEMENT, Recipe
from manyhead.studies.schema import Figures

_NO_MATTER = ("name", "grid", "search", *PLACEMENT)
"""Keys that two runs may differ in and still be the same."""
_DIGITS = 12


@dataclass(frozen=True)
class PlannedRun:
    """A recipe as it is trained, budget and seed included. Runs of one ``digest`` are the same run.

    ``data`` is the sha256 of each file by TASK.SPLIT. A run with ``until`` ends before that stage, and others begin
    where it ended; ``begins_with`` is the one that this run begins with.
    """

    name: str
    digest: str
    recipe: Recipe = field(repr=False)
    data: Mapping[str, str] = field(repr=False)
    until: int | None = None
    begins_with: "PlannedRun | None" = field(default=None, repr=False)


@dataclass(frozen=True)
class Member:
    """What gives a row scores: those of ``task``, or all where it is None. One run for each seed."""

    task: str | None
    recipe: str
    runs: tuple[PlannedRun, ...]


@dataclass(frozen=True)
class PlannedRow:
    """A row of the table and the figures printed for it."""

    name: str
    members: tuple[Member, ...]
    published: Figures


@dataclass(frozen=True)
class Plan:
    """All rows of a study."""

    rows: tuple[PlannedRow, ...]

    @property
    def runs(self) -> list[PlannedRun]:
        """Every run once, in the order of rows, all rows of the first seed before those of the second."""
        seeds = itertools.zip_longest(*(member.runs for row in self.rows for member in row.members))
        runs: dict[str, PlannedRun] = {}
        for run in itertools.chain.from_iterable(seeds):
            if run is not None:
                runs.setdefault(run.digest, run)
        return list(runs.values())


def digest_of(recipe: Recipe, data: Mapping[str, str]) -> str:
    """What makes a run the run it is, in short: the recipe with budget and seed, and the data."""
    value = {key: item for key, item in plain(recipe).items() if key not in _NO_MATTER}
    return hashlib.sha256(json.dumps([value, dict(data)]).encode()).hexdigest()[:_DIGITS]


def prefix_digests(recipe: Recipe, data: Mapping[str, str]) -> list[str]:
    """The digest of the recipe with its first stage alone, its first two, and so on."""
    return [
        digest_of(recipe.with_changes(stages=recipe.stages[:count]), data) for count in range(1, len(recipe.stages) + 1)
    ]
