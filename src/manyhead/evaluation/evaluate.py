"""Scoring a model on a split: predictions, metrics per task, and the two means over tasks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from manyhead.data.task_data import TaskData
from manyhead.evaluation.metrics import constant_sides, overall, task_scores
from manyhead.evaluation.scored import Scored
from manyhead.inference.frozen import FrozenModel, frozen
from manyhead.inference.outputs import Floats, TaskPredictions, raw_outputs, read_outputs
from manyhead.model import MultiTaskModel
from manyhead.objectives.base import Objective
from manyhead.recipe.schema import Recipe

Scores = dict[str, dict[str, float | int]]


@dataclass(frozen=True)
class Evaluation:
    """Scores per task and over tasks; ``predictions`` are kept by task for files and reports.

    ``overall`` maps correlations to (r + 1) / 2, ``overall_raw`` does not; None where a task is absent or unbounded.
    ``constant`` tells by task what makes its correlations 0 by definition: see `constant_sides`. ``outputs`` (E, O) are
    what the heads gave, by task, where they were to be kept. ``scored`` has the predictions beside their targets.
    """

    tasks: Scores
    overall: float | None
    overall_raw: float | None
    predictions: Mapping[str, TaskPredictions] = field(repr=False)
    constant: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]], repr=False)
    outputs: Mapping[str, Floats] = field(default_factory=dict[str, Floats], repr=False)
    scored: Mapping[str, Scored] = field(default_factory=dict[str, Scored], repr=False)

    def as_dict(self) -> dict[str, object]:
        """The JSON of ``manyhead evaluate``."""
        return {"tasks": self.tasks, "overall": self.overall, "overall_raw": self.overall_raw}


def evaluate(
    model: MultiTaskModel | FrozenModel,
    recipe: Recipe,
    data: Mapping[str, TaskData],
    objectives: Mapping[str, Objective],
    *,
    keep_outputs: bool = False,
    tick: Callable[[int], None] | None = None,
) -> Evaluation:
    """Scores ``model`` on one split of each task in ``data``; all must have targets."""
    ready = frozen(model)
    scores: Scores = {}
    predictions: dict[str, TaskPredictions] = {}
    constant: dict[str, tuple[str, ...]] = {}
    kept: dict[str, Floats] = {}
    scored: dict[str, Scored] = {}
    for name, split in data.items():
        task, objective = recipe.tasks[name], objectives[name]
        segment_ids = recipe.encoder.segment_ids
        outputs = raw_outputs(ready, name, split.tokens, objective.outputs, segment_ids=segment_ids, tick=tick)
        found = read_outputs(ready, name, objective, outputs)
        if keep_outputs:
            kept[name] = outputs
        if split.targets is None:
            raise ValueError(f"the {split.split} split of {name} has no targets")
        predictions[name] = found
        constant[name] = constant_sides(found.values, split.targets)
        scores[name] = task_scores(task.kind, found.values, split.targets, task.range, len(task.label_names))
        labels = tuple(task.label_names)
        scored[name] = Scored(
            name, task.kind, task.metric, split.ids, split.targets, found.values, labels=labels, range=task.range
        )
    primary = {name: task.metric for name, task in recipe.tasks.items()}
    mean, raw = overall(scores, primary)
    return Evaluation(scores, mean, raw, predictions, constant, kept, scored)
