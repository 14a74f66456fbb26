"""What a stage is, and where a run is among its stages."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from manyhead.data.task_data import TaskData
from manyhead.evaluation.evaluate import Evaluation
from manyhead.evaluation.metrics import METRICS, overall
from manyhead.rates import Rate
from manyhead.recipe.schema import Stage
from manyhead.schedules.base import Indices, Schedule
from manyhead.training.checkpoint import Checkpoint
from manyhead.training.loop import StepRecord
from manyhead.training.step import Learner


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

    ``stage_bests`` are the steps of the best checkpoints of finished stages, by their names. ``unscored``: what follows
    the last step, its evaluation first, is still to be done. ``pieces`` that memory asks to cut the stage's steps into.
    ``skipped`` counts the steps that were no finite numbers, ``skipped_in_a_row`` the last ones of them.
    """

    stage: int = 0
    stage_step: int = 0
    stage_done: bool = False
    unscored: bool = False
    pieces: int | None = None
    step: int = 0
    stage_bests: dict[str, int] = field(default_factory=dict)
    best_score: float | None = None
    best_step: int | None = None
    stale: int = 0
    seconds: float = 0.0
    tokens: int = 0
    examples: dict[str, int] = field(default_factory=dict)
    logged_bytes: int = 0
    logged_sha256: str = ""
    skipped: int = 0
    skipped_in_a_row: int = 0

    def add(self, record: StepRecord) -> None:
        """Counts one step."""
        self.unscored = True
        self.skipped += record.skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if record.skipped else 0
        self.stage_step += 1
        self.step += 1
        self.seconds += record.seconds
        self.tokens += record.tokens
        for task, count in record.examples.items():
            self.examples[task] = self.examples.get(task, 0) + count

    def enter_next_stage(self, finished: str) -> None:
        """Leaves the stage named ``finished``."""
        if self.best_step is not None:
            self.stage_bests[finished] = self.best_step
        self.stage += 1
        self.stage_step = 0
        self.stage_done = False
        self.pieces = None
        self.best_score = None
        self.stale = 0


def progress_of(checkpoint: Checkpoint) -> Progress:
    """Where the run was when ``checkpoint`` was taken."""
    return Progress(**checkpoint.state["progress"])


def best_of(checkpoint: Checkpoint) -> int | None:
    """The step of the best checkpoint when ``checkpoint`` was taken."""
    return progress_of(checkpoint).best_step


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
