"""A run's stages, one after the other: consuming step records, logging, evaluating, saving, stopping."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from manyhead.data.task_data import TaskData
from manyhead.errors import CheckpointError, DivergedError, StoppedError
from manyhead.evaluation.evaluate import Evaluation
from manyhead.evaluation.metrics import METRICS, overall
from manyhead.model import MultiTaskModel, load_weights
from manyhead.rates import Rate
from manyhead.recipe.schema import Stage
from manyhead.schedules.base import Indices, Schedule
from manyhead.training.checkpoint import (
    WEIGHTS,
    Checkpoint,
    checkpoint_folder,
    checkpoint_folders,
    damage,
    load_checkpoint,
    rotate,
    save_checkpoint,
)
from manyhead.training.loop import StepRecord, steps
from manyhead.training.observer import Observer, StageInfo
from manyhead.training.run_folder import RunFolder
from manyhead.training.signals import StopRequest
from manyhead.training.step import Learner
from manyhead.training.thresholds import fit_thresholds


@dataclass(frozen=True)
class StagePlan:
    """A stage, built: what learns, in which order, at which rate, for how long.

    ``trainable`` names the model's parameters that train; ``rows`` are the training rows in use, by task. ``fitted``
    are the training rows of all tasks, of this stage or not, that a threshold may be fitted on.
    """

    options: Stage
    learner: Learner
    schedule: Schedule
    rate: Rate
    total_steps: int
    trainable: frozenset[str]
    rows: Mapping[str, Indices]
    fitted: Mapping[str, tuple[TaskData, Indices]]

    @property
    def evaluate_every(self) -> int:
        """Steps between evaluations."""
        return self.options.evaluate_every_steps or self.schedule.epoch_steps

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints."""
        return self.options.checkpoint_every_steps or self.evaluate_every


@dataclass
class Progress:
    """Where a run is; saved with each checkpoint. ``best_*`` and ``stale`` belong to the current stage.

    ``stage_bests`` are the steps of the best checkpoints of finished stages, by their names.
    """

    stage: int = 0
    stage_step: int = 0
    stage_done: bool = False
    step: int = 0
    stage_bests: dict[str, int] = field(default_factory=dict)
    best_score: float | None = None
    best_step: int | None = None
    stale: int = 0
    seconds: float = 0.0
    tokens: int = 0
    examples: dict[str, int] = field(default_factory=dict)
    logged_bytes: int = 0

    def add(self, record: StepRecord) -> None:
        """Counts one update."""
        self.stage_step += 1
        self.step += 1
        self.seconds += record.seconds
        self.tokens += record.tokens
        for task, count in record.examples.items():
            self.examples[task] = self.examples.get(task, 0) + count


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

    @property
    def model(self) -> MultiTaskModel:
        """The model that all stages train."""
        return self.plans[0].learner.lesson.model

    def resume(self, checkpoint: Checkpoint) -> None:
        """Goes back to ``checkpoint``: weights, optimiser, place, and the log as long as it was then."""
        self.progress = _progress(checkpoint)
        learner = self.plans[self.progress.stage].learner
        load_checkpoint(checkpoint, self.model, learner.extras, learner.optimizer)
        self.folder.cut_log(self.progress.logged_bytes)
        if self.progress.best_step is not None:
            self.folder.point_best(checkpoint_folder(self.folder.checkpoints, self.progress.best_step))

    def run(self) -> None:
        """Runs what is left of all stages; the model then holds the best weights of the last one."""
        while True:
            plan = self.plans[self.progress.stage]
            if not self.progress.stage_done:
                self._run_stage(plan)
            self._load_best()
            if self.progress.stage + 1 == len(self.plans):
                return
            self._start_next_stage()

    def _start_next_stage(self) -> None:
        if self.progress.best_step is not None:
            self.progress.stage_bests[self.plans[self.progress.stage].options.name] = self.progress.best_step
        self.progress.stage += 1
        self.progress.stage_step = 0
        self.progress.stage_done = False
        self.progress.best_score = None
        self.progress.stale = 0
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
        for record in steps(plan.learner, plan.schedule, plan.rate, start=progress.stage_step, stop=plan.total_steps):
            progress.add(record)
            self._log_step(plan, record)
            self.observer.stepped(record)
            last = progress.stage_step == plan.total_steps
            improved = False
            if last or progress.stage_step % plan.evaluate_every == 0:
                improved = self._evaluate(plan)
                patience = plan.options.early_stopping
                last = last or (patience is not None and progress.stale >= patience.patience)
            progress.stage_done = last
            if last or improved or self.stop or progress.stage_step % plan.checkpoint_every == 0:
                self._save(plan, improved)
            if self.stop and not (last and progress.stage + 1 == len(self.plans)):
                self._end_by_signal()
            if last:
                if progress.stage_step < plan.total_steps:
                    self._event(
                        f"stage {plan.options.name} ended early: no better score in {progress.stale} evaluations"
                    )
                return

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
        bests = {
            name: checkpoint_folder(self.folder.checkpoints, step)
            for name, step in self.progress.stage_bests.items()
            if name in plan.options.distillation.teachers
        }
        for folder in bests.values():
            _check_whole(folder)
        weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.teach(plan, {name: folder / WEIGHTS for name, folder in bests.items()})
        self.model.load_state_dict(weights)

    def _evaluate(self, plan: StagePlan) -> bool:
        """Scores dev and says whether it is the stage's best; without dev every evaluation counts as the best.

        Pretraining does not train the heads that dev would score.
        """
        if plan.options.pretraining is not None:
            return True
        began = time.perf_counter()
        fit_thresholds(self.model, plan.fitted, segment_ids=plan.learner.lesson.segment_ids)
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
        progress = self.progress
        if improved:
            progress.best_step = progress.step
        progress.logged_bytes = self.folder.logged_bytes()
        learner = plan.learner
        save_checkpoint(
            self.folder.checkpoints,
            progress.step,
            self.model,
            learner.extras,
            learner.optimizer,
            state={"stage": plan.options.name, "progress": asdict(progress)},
        )
        if improved:
            self.folder.point_best(checkpoint_folder(self.folder.checkpoints, progress.step))
        rotate(
            self.folder.checkpoints,
            plan.options.keep_checkpoints,
            lambda kept: _progress(kept).best_step,
            self._pinned(),
        )

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
        _check_whole(checkpoint)
        load_weights(self.model, checkpoint / WEIGHTS)

    def _end_by_signal(self) -> None:
        number = self.stop.signal_number
        assert number is not None
        self._event(f"stopped by signal {number}")
        self.folder.update_state(status="stopped")
        saved = checkpoint_folders(self.folder.checkpoints)[-1].name
        raise StoppedError(f"stopped; saved as {saved} in {self.folder.path}; go on with --resume", number)

    def _log_step(self, plan: StagePlan, record: StepRecord) -> None:
        conflicts = {} if record.cosines is None else {"cosines": record.cosines}
        self.folder.log(
            {
                "kind": "step",
                "stage": plan.options.name,
                "step": self.progress.step,
                "epoch": record.epoch,
                "losses": record.losses,
                "lr": record.lr,
                "grad_norm": record.grad_norm,
                **conflicts,
                "examples": record.examples,
                "tokens": record.tokens,
                "time": _clock(record.seconds),
            }
        )

    def _event(self, text: str) -> None:
        self.folder.log({"kind": "event", "text": text, "time": _clock(0.0)})
        self.observer.event(text)


def _check_whole(checkpoint: Path) -> None:
    if problem := damage(checkpoint):
        raise CheckpointError(f"{checkpoint}: {problem}; expected weights that the run needs; start a new run by --out")


def _progress(checkpoint: Checkpoint) -> Progress:
    return Progress(**checkpoint.state["progress"])


def selection_score(
    evaluation: Evaluation, select_by: str, primary: Mapping[str, str], trained: Collection[str]
) -> float:
    """The number that picks the best checkpoint, higher being better.

    ``overall`` is taken over the tasks of the stage, ``trained``, that were scored, or where none was, over all that
    were: heads that the stage leaves alone say nothing of it. A metric that is better when lower counts negative.
    """
    if select_by == "overall":
        tasks = [task for task in evaluation.tasks if task in trained] or list(evaluation.tasks)
        mean, _ = overall(evaluation.tasks, {task: primary[task] for task in tasks})
        return float("-inf") if mean is None else mean
    task, metric = select_by.rsplit(".", 1)
    value = float(evaluation.tasks[task][metric])
    return value if METRICS[metric].higher_is_better else -value


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
