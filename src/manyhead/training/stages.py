"""A run's stages, one after the other: consuming step records, logging, evaluating, saving, stopping."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from manyhead.errors import CheckpointError, DivergedError, StoppedError, UsageError
from manyhead.evaluation.evaluate import Evaluation
from manyhead.faults import at
from manyhead.files import writing
from manyhead.model import MultiTaskModel, load_weights
from manyhead.training.checkpoint import (
    WEIGHTS,
    Checkpoint,
    Snapshot,
    checkpoint_folder,
    checkpoint_folders,
    damage,
    load_checkpoint,
    rotate,
    take_snapshot,
    write_checkpoint,
)
from manyhead.training.loop import StepRecord, steps
from manyhead.training.observer import Observer, StageInfo
from manyhead.training.run_folder import METRICS, RunFolder
from manyhead.training.signals import Interruption, StopRequest
from manyhead.training.stage_plan import Progress, StagePlan, progress_of, selection_score
from manyhead.training.thresholds import fit_thresholds
from manyhead.training.writer import Writer

SKIPPED_IN_A_ROW = 20
"""Steps without a finite loss and gradient, one behind the other, that end a run which skips them."""


class StageRunner:
    """Runs the stages of a plan in one run folder.

    ``evaluate`` scores dev, or gives None where no task has one; ``primary`` names each task's metric. ``teach``
    fills the teaching of a plan's stage, given the files of the best weights of those teachers that are earlier stages.
    """

    def __init__(
        self,
        plans: list[StagePlan],
        folder: RunFolder,
        *,
        evaluate: Callable[[], Evaluation | None],
        teach: Callable[[StagePlan, Mapping[str, Path]], None],
        primary: Mapping[str, str],
        observer: Observer,
        stop: StopRequest,
    ) -> None:
        self.plans = plans
        self.folder = folder
        self.evaluate = evaluate
        self.teach = teach
        self.primary = primary
        self.observer = observer
        self.stop = stop
        self.progress = Progress()
        self.best_evaluation: Evaluation | None = None
        self._writer = Writer()

    @property
    def model(self) -> MultiTaskModel:
        """The model that all stages train."""
        return self.plans[0].learner.lesson.model

    def resume(self, checkpoint: Checkpoint) -> None:
        """Goes back to ``checkpoint``: weights, optimiser, place, and the log as long as it was then."""
        self.progress = progress_of(checkpoint)
        learner = self.plans[self.progress.stage].learner
        load_checkpoint(checkpoint, self.model, learner.extras, learner.optimizer)
        if not self.folder.cut_log(self.progress.logged_bytes, self.progress.logged_sha256):
            self._event(f"{self.folder.path / METRICS} is not what was logged (sha256 differs); training is not harmed")
        if self.progress.best_step is not None:
            self.folder.point_best(checkpoint_folder(self.folder.checkpoints, self.progress.best_step))
        plan = self.plans[self.progress.stage]
        rotate(self.folder.checkpoints, checkpoint.step, plan.options.keep_checkpoints, _best_of, self._pinned())
        # A stage that the recipe has made longer since.
        self.progress.stage_done &= self.progress.stage_step == plan.total_steps or self._is_stale(plan)

    def run(self) -> None:
        """Runs what is left of all stages; the model then holds the best weights of the last one.

        Raises `StoppedError` where a signal came: everything is saved, up to the last step.
        """
        with self._writer, self.stop.deferred():
            while True:
                plan = self.plans[self.progress.stage]
                if not self.progress.stage_done:
                    self._run_stage(plan)
                self._load_best()
                if self.progress.stage + 1 == len(self.plans):
                    return
                self.progress.enter_next_stage(plan.options.name)
                self.best_evaluation = None

    def _run_stage(self, plan: StagePlan) -> None:
        progress = self.progress
        if progress.stage_step == 0:
            self._begin(plan)
        self.observer.stage_started(_info(plan, progress.stage_step))
        if plan.options.distillation is not None:
            self._teach(plan)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in plan.trainable)
        if progress.unscored:
            self._conclude(plan)
        for record in () if progress.stage_done else self._records(plan):
            self._count(plan, record)
            self._conclude(plan)
            if progress.stage_done:
                break
        if progress.stage_step < plan.total_steps:
            self._event(f"stage {plan.options.name} ended early: no better score in {progress.stale} evaluations")

    def _records(self, plan: StagePlan) -> Iterator[StepRecord]:
        """Takes the stage's steps. Before an error of one is raised, what the steps before it did is saved."""
        learner = plan.learner if self.progress.pieces is None else plan.learner.in_pieces(self.progress.pieces)
        try:
            yield from steps(learner, plan.schedule, plan.rate, start=self.progress.stage_step, stop=plan.total_steps)
        except (DivergedError, UsageError):
            if self.progress.stage_step and _is_finite(self.model):
                self._save(plan, improved=False)
            raise
        except torch.OutOfMemoryError as error:
            raise UsageError(
                f"stage {plan.options.name}, step {self.progress.stage_step + 1}: the optimiser's state does not fit "
                f"into memory ({error}); the checkpoint before is kept; expected room for it beside the weights; "
                "choose a smaller encoder, or freeze a part of it"
            ) from None

    def _count(self, plan: StagePlan, record: StepRecord) -> None:
        """Notes what a step did."""
        progress = self.progress
        progress.add(record)
        if record.pieces != (progress.pieces or plan.options.accumulation):
            self._event(f"out of memory at step {record.step}: steps are cut into {record.pieces} pieces from here on")
            progress.pieces = record.pieces
        self._log_step(plan, record)
        if record.skipped:
            self._event(f"step {record.step} of stage {plan.options.name} was no finite number and is skipped")
        at("step: logged", record)
        self.observer.stepped(record)

    def _conclude(self, plan: StagePlan) -> None:
        """Does what is due after a step: an evaluation, a checkpoint, the end of the stage, the end by a signal."""
        progress = self.progress
        last = progress.stage_step == plan.total_steps
        improved = False
        if last or progress.stage_step % plan.evaluate_every == 0:
            try:
                improved = self._evaluate(plan)
            except Interruption:
                self._save(plan, improved=False)
                self._end_by_signal()
            last = last or self._is_stale(plan)
        progress.unscored = False
        progress.stage_done = last
        too_many = progress.skipped_in_a_row >= SKIPPED_IN_A_ROW
        if last or improved or too_many or self.stop or progress.stage_step % plan.checkpoint_every == 0:
            self._save(plan, improved)
        if too_many:
            raise DivergedError(
                f"stage {plan.options.name}, step {progress.stage_step}: {SKIPPED_IN_A_ROW} steps in a row were no "
                "finite numbers; the weights before them are kept; lower the learning rate"
            )
        if self.stop:
            self._end_by_signal()

    def _is_stale(self, plan: StagePlan) -> bool:
        """Whether the stage stops early here."""
        stopping = plan.options.early_stopping
        return stopping is not None and self.progress.stale >= stopping.patience

    def _begin(self, plan: StagePlan) -> None:
        """Brings the model to the stage's start, and keeps the run's first weights for stages that go back to them."""
        first = checkpoint_folder(self.folder.checkpoints, 0)
        if self.progress.step == 0 and any(later.options.start == "encoder" for later in self.plans[1:]):
            self._save(plan, improved=False)
        elif self.progress.stage and plan.options.start == "encoder":
            self._load(first)
        for regulariser in plan.learner.lesson.regularisers:
            regulariser.started(self.model)

    def _teach(self, plan: StagePlan) -> None:
        """Asks the teachers; the model keeps the weights that it has."""
        assert plan.options.distillation is not None
        self._writer.wait()
        at("teachers: asked", plan)
        bests = {
            name: checkpoint_folder(self.folder.checkpoints, step)
            for name, step in self.progress.stage_bests.items()
            if name in plan.options.distillation.teachers
        }
        for folder in bests.values():
            _check_whole(folder)
        weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        try:
            self.teach(plan, {name: folder / WEIGHTS for name, folder in bests.items()})
        except Interruption:
            self._end_by_signal()
        self.model.load_state_dict(weights)

    def _evaluate(self, plan: StagePlan) -> bool:
        """Scores dev and says whether it is the stage's best; without dev every evaluation counts as the best.

        Pretraining does not train the heads that dev would score.
        """
        if plan.options.pretraining is not None:
            return True
        began = time.perf_counter()
        at("evaluation: begins", plan)
        segment_ids = plan.learner.lesson.segment_ids
        fit_thresholds(self.model, plan.fitted, segment_ids=segment_ids, tick=lambda _: self.stop.check())
        evaluation = self.evaluate()
        if evaluation is None:
            return True
        self._check_finite(plan, evaluation)
        seconds = time.perf_counter() - began
        self.progress.seconds += seconds
        score = selection_score(evaluation, plan.options.select_by, self.primary, plan.learner.lesson.data)
        improved = self.progress.best_score is None or score > self.progress.best_score
        if improved:
            self.progress.best_score, self.progress.stale = score, 0
            self.best_evaluation = evaluation
        else:
            self.progress.stale += 1
        record = {"kind": "eval", "stage": plan.options.name, "step": self.progress.step, "split": "dev"}
        self.folder.log({**record, **evaluation.as_dict(), "time": _clock(seconds)})
        self.observer.evaluated(evaluation, self.progress.stage_step, is_best=improved)
        return improved

    def _check_finite(self, plan: StagePlan, evaluation: Evaluation) -> None:
        bad = [task for task, found in evaluation.predictions.items() if not found.are_finite]
        if bad:
            raise DivergedError(
                f"stage {plan.options.name}, step {self.progress.stage_step}: dev predictions of {', '.join(bad)} are "
                "not finite numbers; the checkpoint before is kept; lower the learning rate"
            )

    def _save(self, plan: StagePlan, improved: bool) -> None:
        """Takes a checkpoint; it is written while training goes on."""
        progress, learner = self.progress, plan.learner
        at("save: begins", progress.step)
        if not _is_finite(self.model):
            raise DivergedError(
                f"stage {plan.options.name}, step {progress.stage_step}: the weights are not finite numbers; the "
                "checkpoint before is kept; lower the learning rate"
            )
        if improved:
            progress.best_step = progress.step
        progress.logged_bytes, progress.logged_sha256 = self.folder.logged()
        state = {"stage": plan.options.name, "progress": asdict(progress)}
        snapshot = take_snapshot(progress.step, self.model, learner.extras, learner.optimizer, state)
        self._writer.write(
            partial(_write, self.folder, snapshot, plan.options.keep_checkpoints, improved, self._pinned())
        )
        at("save: ends", progress.step)

    def _pinned(self) -> set[int]:
        """Steps of the checkpoints that later stages need: the run's first weights, and those of teachers."""
        later = [plan.options for plan in self.plans[self.progress.stage :]]
        teachers = {name for stage in later if stage.distillation for name in stage.distillation.teachers}
        pinned = {step for name, step in self.progress.stage_bests.items() if name in teachers}
        return pinned | ({0} if any(stage.start == "encoder" for stage in later) else set())

    def _load_best(self) -> None:
        if self.progress.best_step is not None:
            self._load(checkpoint_folder(self.folder.checkpoints, self.progress.best_step))

    def _load(self, checkpoint: Path) -> None:
        self._writer.wait()
        _check_whole(checkpoint)
        load_weights(self.model, checkpoint / WEIGHTS)

    def _end_by_signal(self) -> NoReturn:
        number = self.stop.signal_number
        assert number is not None
        self._writer.wait()
        self._event(f"stopped by signal {number}")
        self.folder.update_state(status="stopped")
        saved = checkpoint_folders(self.folder.checkpoints)
        what = f"saved as {saved[-1].name}" if saved else "no step was taken yet"
        raise StoppedError(f"stopped; {what} in {self.folder.path}; go on with --resume", number)

    def _log_step(self, plan: StagePlan, record: StepRecord) -> None:
        extra: dict[str, Any] = {} if record.cosines is None else {"cosines": record.cosines}
        if self.progress.pieces is not None:
            extra["pieces"] = record.pieces
        if record.skipped:
            extra["skipped"] = True
        self.folder.log(
            {
                "kind": "step",
                "stage": plan.options.name,
                "step": self.progress.step,
                "epoch": record.epoch,
                "losses": {task: _finite(loss) for task, loss in record.losses.items()},
                "lr": record.lr,
                "grad_norm": _finite(record.grad_norm),
                **extra,
                "examples": record.examples,
                "tokens": record.tokens,
                "time": _clock(record.seconds),
            }
        )

    def _event(self, text: str) -> None:
        self.folder.log({"kind": "event", "text": text, "time": _clock(0.0)})
        self.observer.event(text)


def _write(folder: RunFolder, snapshot: Snapshot, keep: int, improved: bool, pinned: set[int]) -> None:
    """Publishes a checkpoint, then points to it where it is the best, and only then removes old ones."""
    folder.sync_log()
    checkpoint = write_checkpoint(folder.checkpoints, snapshot)
    if improved:
        folder.point_best(checkpoint.folder)
        at("save: best linked", checkpoint)
    with writing(str(folder.checkpoints)):
        rotate(folder.checkpoints, snapshot.step, keep, _best_of, pinned)


def _best_of(checkpoint: Checkpoint) -> int | None:
    return progress_of(checkpoint).best_step


def _is_finite(model: MultiTaskModel) -> bool:
    """Whether all weights are finite numbers: one that is none makes its sum none."""
    return bool(torch.stack([parameter.detach().sum() for parameter in model.parameters()]).isfinite().all())


def _finite(value: float) -> float | None:
    """A number as JSON has it, which knows only finite ones."""
    return value if math.isfinite(value) else None


def _check_whole(checkpoint: Path) -> None:
    if problem := damage(checkpoint):
        raise CheckpointError(f"{checkpoint}: {problem}; expected weights that the run needs; start a new run by --out")


def _info(plan: StagePlan, first_step: int) -> StageInfo:
    return StageInfo(
        name=plan.options.name,
        tasks=tuple(plan.learner.lesson.data),
        epochs=plan.options.epochs,
        first_step=first_step,
        total_steps=plan.total_steps,
        epoch_steps=plan.schedule.epoch_steps,
        epoch_examples=plan.schedule.epoch_examples,
    )


def _clock(seconds: float) -> dict[str, Any]:
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(seconds, 6)}
