"""A run's stages, one after the other: consuming step records, logging, evaluating, saving, stopping."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import torch

from manyhead.errors import DivergedError, StoppedError, UsageError
from manyhead.evaluation.evaluate import Evaluation
from manyhead.faults import at
from manyhead.model import MultiTaskModel
from manyhead.training.checkpoint import Checkpoint, load_checkpoint
from manyhead.training.loop import StepRecord, steps
from manyhead.training.observer import Observer, StageInfo
from manyhead.training.records import evaluation_line, event_line, step_line
from manyhead.training.run_folder import METRICS, RunFolder
from manyhead.training.saving import Saver
from manyhead.training.signals import Interruption, StopRequest
from manyhead.training.stage_plan import Progress, StagePlan, progress_of, selection_score
from manyhead.training.thresholds import fit_thresholds

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
        self._saver = Saver(folder, plans)

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
            self.event(f"{self.folder.path / METRICS} is not what was logged (sha256 differs); training is not harmed")
        self._saver.tidy(self.progress)
        plan = self.plans[self.progress.stage]
        if self.progress.pieces is not None and plan.options.accumulation > self.progress.pieces:
            self.progress.pieces = None
        # A stage that the recipe has made longer since.
        self.progress.stage_done &= self.progress.stage_step == plan.total_steps or self._is_stale(plan)

    def run(self) -> None:
        """Runs what is left of all stages; the model then holds the best weights of the last one.

        Raises `StoppedError` where a signal came: everything is saved, up to the last step.
        """
        with self._saver, self.stop.deferred():
            while True:
                plan = self.plans[self.progress.stage]
                if not self.progress.stage_done:
                    self._run_stage(plan)
                if self.progress.best_step is not None:
                    self._saver.load(self.progress.best_step)
                if self.progress.stage + 1 == len(self.plans):
                    return
                self.progress.enter_next_stage(plan.options.name)
                self.best_evaluation = None

    def event(self, text: str) -> None:
        """Logs something worth one line, and says it."""
        self.folder.log(event_line(text))
        self.observer.event(text)

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
            self.event(f"stage {plan.options.name} ended early: no better score in {progress.stale} evaluations")

    def _records(self, plan: StagePlan) -> Iterator[StepRecord]:
        """Takes the stage's steps. Before an error of one is raised, what the steps before it did is saved."""
        learner = plan.learner if self.progress.pieces is None else plan.learner.in_pieces(self.progress.pieces)
        try:
            yield from steps(learner, plan.schedule, plan.rate, start=self.progress.stage_step, stop=plan.total_steps)
        except (DivergedError, UsageError) as error:
            if not self._saver.is_finite():
                raise DivergedError(
                    f"stage {plan.options.name}: the update of step {self.progress.stage_step} left weights that are "
                    "no finite numbers; the checkpoint before is kept; lower the learning rate"
                ) from error
            if self.progress.stage_step:
                self._saver.save(self.progress, improved=False)
                self._saver.wait()
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
            self.event(f"out of memory at step {record.step}: steps are cut into {record.pieces} pieces from here on")
            progress.pieces = record.pieces
        self.folder.log(step_line(plan.options.name, progress, record))
        if record.skipped:
            self.event(f"step {record.step} of stage {plan.options.name} was no finite number and is skipped")
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
                self._saver.save(progress, improved=False)
                self._end_by_signal()
            last = last or self._is_stale(plan)
        progress.unscored = False
        progress.stage_done = last
        too_many = progress.skipped_in_a_row >= SKIPPED_IN_A_ROW
        if last or improved or too_many or self.stop or progress.stage_step % plan.checkpoint_every == 0:
            self._saver.save(progress, improved=improved)
        if too_many:
            self._saver.wait()
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
        if self.progress.step == 0 and any(later.options.start == "encoder" for later in self.plans[1:]):
            self._saver.save(self.progress, improved=False)
        elif self.progress.stage and plan.options.start == "encoder":
            self._saver.load(0)
        for regulariser in plan.learner.lesson.regularisers:
            regulariser.started(self.model)

    def _teach(self, plan: StagePlan) -> None:
        """Asks the teachers; the model keeps the weights that it has."""
        assert plan.options.distillation is not None
        at("teachers: asked", plan)
        teachers = plan.options.distillation.teachers
        bests = {name: step for name, step in self.progress.stage_bests.items() if name in teachers}
        files = {name: self._saver.weights(step) for name, step in bests.items()}
        weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        try:
            self.teach(plan, files)
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
        check_finite(evaluation, f"stage {plan.options.name}, step {self.progress.stage_step}")
        seconds = time.perf_counter() - began
        self.progress.seconds += seconds
        score = selection_score(evaluation, plan.options.select_by, self.primary, plan.learner.lesson.data)
        improved = self.progress.best_score is None or score > self.progress.best_score
        if improved:
            self.progress.best_score, self.progress.stale = score, 0
            self.best_evaluation = evaluation
        else:
            self.progress.stale += 1
        self.folder.log(evaluation_line(plan.options.name, self.progress, evaluation, seconds))
        self.observer.evaluated(evaluation, self.progress.stage_step, is_best=improved)
        return improved

    def _end_by_signal(self) -> NoReturn:
        number = self.stop.signal_number
        assert number is not None
        newest = self._saver.newest()
        self.event(f"stopped by signal {number}")
        self.folder.update_state(status="stopped")
        what = f"saved as {newest.name}" if newest else "no step was taken yet"
        raise StoppedError(f"stopped; {what} in {self.folder.path}; go on with --resume", number)


def check_finite(evaluation: Evaluation, where: str) -> None:
    """Raises `DivergedError` where predictions are no numbers."""
    bad = [task for task, found in evaluation.predictions.items() if not found.are_finite]
    if bad:
        raise DivergedError(
            f"{where}: dev predictions of {', '.join(bad)} are not finite numbers; the checkpoint before is kept; "
            "lower the learning rate"
        )


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
