"""Tuning: each side's learning rate, by as many trials on the rows that pick checkpoints.

A baseline that was not tuned proves nothing, and neither does a shared run that was tuned better. So both sides try the
same factors on their rates, at the first seed, and go on with what scored best there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manyhead.recipe.schema import Recipe
from manyhead.studies.budget import faster
from manyhead.studies.folder import StudyFolder
from manyhead.studies.load import slug
from manyhead.studies.runs import PlannedRun, digest_of

SHARED = "shared"
"""Name of the side that trains all tasks."""


@dataclass(frozen=True)
class Side:
    """One of the models compared: all tasks together (``task`` None), or one alone. ``data``: see `PlannedRun`."""

    name: str
    task: str | None
    recipe: Recipe
    data: Mapping[str, str]

    def run(self, factor: float, number: int) -> PlannedRun:
        """The run with rates times ``factor`` at seed ``number`` of the recipe's and those after it."""
        stages = [
            stage.model_copy(update={"optimizer": faster(stage.optimizer, factor)}) for stage in self.recipe.stages
        ]
        recipe = self.recipe.reseeded(self.recipe.seed + number).with_changes(stages=stages)
        digest = digest_of(recipe, self.data)
        return PlannedRun(f"{slug(self.name)}-lr{factor:g}-seed{recipe.seed}-{digest}", digest, recipe, self.data)


@dataclass(frozen=True)
class Tuned:
    """The factor that a side goes on with, and the score of each that was tried; None where the run failed."""

    factor: float
    scores: Mapping[float, float | None]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"factor": self.factor, "scores": {f"{factor:g}": score for factor, score in self.scores.items()}}


def tuned(side: Side, factors: Sequence[float], folder: StudyFolder) -> Tuned:
    """The best of ``factors`` by the score that picked the checkpoints of its trial; of equal ones the smallest."""
    scores: dict[float, float | None] = {}
    for factor in factors:
        best = (folder.summary(side.run(factor, 0)) or {}).get("best") or {}
        scores[factor] = best.get("score")
    usable = {factor: score for factor, score in scores.items() if score is not None}
    return Tuned(max(usable, key=lambda factor: (usable[factor], -factor)) if usable else factors[0], scores)
