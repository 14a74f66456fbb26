"""Fitting the cut between two classes on training rows, where a task's loss asks for it."""

from collections.abc import Mapping

import torch

from manyhead.inference.outputs import raw_outputs
from manyhead.objectives.threshold import fit_threshold
from manyhead.schedules.base import Indices
from manyhead.training.losses import Lesson

FITTED_ROWS = 2000
"""Training rows of a task that its threshold is fitted on, at most: spread over those in use."""


def fit_thresholds(lesson: Lesson, rows: Mapping[str, Indices]) -> None:
    """Sets the threshold of each task that has one to the cut of the highest accuracy on its training rows."""
    for task, data in lesson.data.items():
        if lesson.model.threshold(task) is None or data.targets is None:
            continue
        fitted = rows[task][:: -(-len(rows[task]) // FITTED_ROWS)]  # files may be sorted by class
        outputs = raw_outputs(lesson.model, task, data.tokens.take(fitted), 1, segment_ids=lesson.segment_ids)
        cut = fit_threshold(torch.from_numpy(outputs[:, 0]), torch.from_numpy(data.targets[fitted]))
        lesson.model.set_threshold(task, cut)
