"""A run's checkpoints: taken between two steps, written beside the next ones, old ones removed."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from manyhead.errors import CheckpointError, DivergedError
from manyhead.faults import at
from manyhead.files import writing
from manyhead.model import load_weights
from manyhead.training.checkpoint import (
    WEIGHTS,
    Snapshot,
    checkpoint_folder,
    checkpoint_folders,
    damage,
    rotate,
    take_snapshot,
    write_checkpoint,
)
from manyhead.training.run_folder import RunFolder
from manyhead.training.stage_plan import Progress, StagePlan, best_of
from manyhead.training.writer import Writer


class Saver:
    """Saves to and loads from the checkpoints in ``folder``; ``plans`` are those of all stages."""

    def __init__(self, folder: RunFolder, plans: Sequence[StagePlan]) -> None:
        self._folder = folder
        self._plans = plans
        self._model = plans[0].learner.lesson.model
        self._writer = Writer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits until everything is written."""
        self._writer.__exit__(kind, error, trace)

    def wait(self) -> None:
        """Returns when everything is written. Raises `WriteError`."""
        self._writer.wait()

    def save(self, progress: Progress, *, improved: bool) -> None:
        """Takes a checkpoint of where the run is, the best one if it has ``improved``. Training may go on at once.

        Raises `DivergedError` where the weights are not finite, and `WriteError` where the last one was not written.
        """
        plan = self._plans[progress.stage]
        learner = plan.learner
        at("save: begins", progress.step)
        self._writer.wait()  # so that there is one copy of everything, not two
        if not self.is_finite():
            raise DivergedError(
                f"stage {plan.options.name}, step {progress.stage_step}: the weights are not finite numbers; the "
                "checkpoint before is kept; lower the learning rate"
            )
        if improved:
            progress.best_step = progress.step
        progress.logged_bytes, progress.logged_sha256 = self._folder.logged()
        state = {"run": self._folder.id, "stage": plan.options.name, "progress": asdict(progress)}
        snapshot = take_snapshot(progress.step, self._model, learner.extras, learner.optimizer, state)
        keep = plan.options.keep_checkpoints
        self._writer.write(partial(_write, self._folder, snapshot, keep, improved, self._pinned(progress)))
        at("save: ends", progress.step)

    def tidy(self, progress: Progress) -> None:
        """Makes ``best`` and the checkpoints that are kept those of where the run goes on.

        Raises `CheckpointError` where one that is still needed is not whole.
        """
        for step in sorted(self._pinned(progress)):
            self.weights(step)
        if progress.best_step is not None:
            self._folder.point_best(self._path(progress.best_step))
        keep = self._plans[progress.stage].options.keep_checkpoints
        _rotate(self._folder, progress.step, keep, self._pinned(progress))

    def is_finite(self) -> bool:
        """Whether all weights are finite numbers: one that is none makes its sum none."""
        return bool(torch.stack([each.detach().sum() for each in self._model.parameters()]).isfinite().all())

    def load(self, step: int) -> None:
        """Puts the weights of ``step`` into the model. Raises `CheckpointError` where they are not whole."""
        load_weights(self._model, self.weights(step))

    def weights(self, step: int) -> Path:
        """The file of the weights of ``step``. Raises `CheckpointError` where the checkpoint is not whole."""
        self._writer.wait()
        if problem := damage(self._path(step)):
            raise CheckpointError(
                f"{self._path(step)}: {problem}; expected weights that the run needs; start a new run by --out"
            )
        return self._path(step) / WEIGHTS

    def newest(self) -> Path | None:
        """The folder of the newest checkpoint, if there is one."""
        self._writer.wait()
        return next(reversed(checkpoint_folders(self._folder.checkpoints)), None)

    def _path(self, step: int) -> Path:
        return checkpoint_folder(self._folder.checkpoints, step)

    def _pinned(self, progress: Progress) -> set[int]:
        """Steps of the checkpoints that later stages need: the run's first weights, and those of teachers."""
        later = [plan.options for plan in self._plans[progress.stage :]]
        teachers = {name for stage in later if stage.distillation for name in stage.distillation.teachers}
        pinned = {step for name, step in progress.stage_bests.items() if name in teachers}
        return pinned | ({0} if any(stage.start == "encoder" for stage in later) else set())


def _write(folder: RunFolder, snapshot: Snapshot, keep: int, improved: bool, pinned: set[int]) -> None:
    """Publishes a checkpoint, then points to it where it is the best, and only then removes old ones."""
    folder.sync_log()
    checkpoint = write_checkpoint(folder.checkpoints, snapshot)
    if improved:
        folder.point_best(checkpoint.folder)
        at("save: best linked", checkpoint)
    _rotate(folder, snapshot.step, keep, pinned)


def _rotate(folder: RunFolder, step: int, keep: int, pinned: set[int]) -> None:
    with writing(str(folder.checkpoints)):
        rotate(folder.checkpoints, step, keep, best_of, pinned)
