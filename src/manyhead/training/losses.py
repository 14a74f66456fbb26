"""From the parts of a step to their losses: what the tasks, their teachers and the regularisers ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manyhead.batching import pack
from manyhead.data.task_data import TaskData
from manyhead.inference.outputs import TaskPredictions
from manyhead.model import MultiTaskModel
from manyhead.objectives.base import Objective, Piece, reduce_losses
from manyhead.pretraining.base import Pretraining
from manyhead.regularisers.base import Regulariser, TrainingPass
from manyhead.schedules.base import Indices, Part


@dataclass(frozen=True)
class TaskLosses:
    """The losses of a task: ``main``, which also predicts, and ``auxiliary`` ones with their weights."""

    main: Objective
    auxiliary: tuple[tuple[float, Objective], ...] = ()

    def losses(self, piece: Piece) -> Tensor:
        """Losses (E,) of all."""
        return self.main.losses(piece) + sum(weight * each.losses(piece) for weight, each in self.auxiliary)


@dataclass
class Teaching:
    """What teachers predict for the training rows of tasks, and how much it counts.

    ``predictions`` by task, of all training rows; those of a task without a teacher are missing. Where classes are cut
    by a fitted threshold, a teacher's probabilities count from its own; the student's is fitted when it is scored.
    """

    weight: float
    temperature: float
    predictions: dict[str, TaskPredictions] = field(default_factory=dict)

    def losses(self, task: str, gold: Tensor, rows: Indices, outputs: Tensor, objective: Objective) -> Tensor:
        """The gold losses (E,) blended with the soft ones of the same rows (MT-DNN; Hinton 2015).

        Soft losses are temperature^2 times the cross entropy between the probabilities at the temperature; for scores
        the squared difference.
        """
        if task not in self.predictions:
            return gold
        taught = self.predictions[task]
        logs = objective.log_probabilities(outputs)
        if taught.probabilities is None or logs is None:
            scores = objective.predict(outputs).scores
            assert scores is not None
            soft = (scores - _rows(taught.values, rows).to(outputs)).square()
        else:
            own = (logs / self.temperature).log_softmax(1)
            teacher = _rows(taught.probabilities, rows).to(outputs).clamp_min(1e-30).log() / self.temperature
            soft = -(teacher.softmax(1) * own).sum(1) * self.temperature**2
        return (1 - self.weight) * gold + self.weight * soft


@dataclass(frozen=True)
class Lesson:
    """What a stage learns: the tasks' losses, or in their place ``pretraining`` on their texts."""

    model: MultiTaskModel
    data: Mapping[str, TaskData]
    tasks: Mapping[str, TaskLosses]
    pretraining: Pretraining | None
    regularisers: Sequence[Regulariser]
    teaching: Teaching | None
    segment_ids: bool

    @property
    def adds_up(self) -> bool:
        """Whether losses are means over examples: a step cut into pieces then is the step."""
        objectives = [each for task in self.tasks.values() for each in (task.main, *(own for _, own in task.auxiliary))]
        return self.pretraining is None and not any(getattr(each, "in_batch", False) for each in objectives)

    def tokens(self, parts: Sequence[Part]) -> int:
        """Tokens of the parts' examples."""
        found = 0
        for part in parts:
            tokens = self.data[part.task].tokens
            n = tokens.sequences_per_example
            found += int((tokens.offsets[(part.examples + 1) * n] - tokens.offsets[part.examples * n]).sum())
        return found

    def losses(self, parts: Sequence[Part], counts: Mapping[str, int]) -> dict[str, Tensor]:
        """Each part's share in its task's mean loss over the step, of ``counts`` examples: scalars by task."""
        if self.pretraining is not None:
            means = self.pretraining.losses(self.model, parts, self.data, segment_ids=self.segment_ids)
            return {part.task: means[part.task] * (len(part.examples) / counts[part.task]) for part in parts}
        device = next(self.model.parameters()).device
        stores = {part.task: self.data[part.task].tokens for part in parts}
        batch = pack(parts, stores, segment_ids=self.segment_ids).to(device)
        passed = self.model.run(batch)
        pieces = {
            part.task: Piece(
                passed.outputs[part.task],
                passed.vectors[part.task],
                _rows(self.data[part.task].targets, part.examples).to(device),
            )
            for part in parts
        }
        rows = {part.task: part.examples for part in parts}

        def losses_of(task: str, piece: Piece) -> Tensor:
            losses = self.tasks[task].losses(piece)
            if self.teaching is None:
                return losses
            return self.teaching.losses(task, losses, rows[task], piece.outputs, self.tasks[task].main)

        losses = {task: losses_of(task, piece) for task, piece in pieces.items()}
        objectives = {task: self.tasks[task].main for task in pieces}
        done = TrainingPass(self.model, batch, passed, pieces, objectives, losses, losses_of)
        found = dict(losses)
        for regulariser in self.regularisers:
            for task, penalties in regulariser.penalties(done).items():
                found[task] = found[task] + penalties
        return {task: reduce_losses(losses, counts[task]) for task, losses in found.items()}


def _rows(values: NDArray[np.generic] | None, rows: Indices) -> Tensor:
    assert values is not None
    return torch.from_numpy(values[rows])
