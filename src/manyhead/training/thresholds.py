"""Fitting the cut between two classes on training rows, where a task's loss asks for it."""

from collections.abc import Callable, Mapping

import torch

from manyhead.data.task_data import TaskData
from manyhead.inference.outputs import raw_outputs
from manyhead.model import MultiTaskModel
from manyhead.objectives.threshold import fit_threshold
from manyhead.schedules.base import Indices

FITTED_ROWS = 2000
"""Training rows of a task that its threshold is fitted on, at most: spread over those given."""


def fit_thresholds(
    model: MultiTaskModel,
    rows: Mapping[str, tuple[TaskData, Indices]],
    *,
    segment_ids: bool,
    tick: Callable[[int], None] | None = None,
) -> None:
    """Sets the threshold of each task that has one to the cut of the highest accuracy on its training rows.

    ``rows``: the training data of tasks and which of them to use. Tasks that are not trained at the moment count too:
    the encoder moves below their heads. ``tick`` is called with the rows done after each batch.
    """
    for task, (data, use) in rows.items():
        if model.threshold(task) is None or data.targets is None:
            continue
        fitted = use[:: -(-len(use) // FITTED_ROWS)]  # files may be sorted by class
        outputs = raw_outputs(model, task, data.tokens.take(fitted), 1, segment_ids=segment_ids, tick=tick)
        cut = fit_threshold(torch.from_numpy(outputs[:, 0]), torch.from_numpy(data.targets[fitted]))
        model.set_threshold(task, cut)
