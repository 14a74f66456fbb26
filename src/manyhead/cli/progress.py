"""A training run as it goes: a live screen on a terminal, plain lines elsewhere. Both on stderr."""

import math
import sys
import time
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from manyhead.cli.output import duration, score, table
from manyhead.recipe.schema import Recipe
from manyhead.training.observer import Observer, StageInfo

if TYPE_CHECKING:
    from manyhead.evaluation.evaluate import Evaluation
    from manyhead.training.loop import StepRecord

LINE_SECONDS = 10.0
"""Between two lines where there is no screen."""

_KEPT = 0.95
_RECENT_STEPS = 100
_BAR_WIDTH = 40


@dataclass
class TaskState:
    """How a task stands: ``seen`` of ``expected`` examples of the stage, and its dev scores."""

    expected: float
    seen: float
    dev: float | None = None
    best: float | None = None
    _sum: float = 0.0
    _weight: float = 0.0

    @property
    def loss(self) -> float | None:
        """Mean loss of the last steps, older ones counting less."""
        return self._sum / self._weight if self._weight else None

    @property
    def share(self) -> float:
        """How much of the stage's examples are done, from 0 to 1."""
        return min(1.0, self.seen / self.expected) if self.expected else 1.0

    def add(self, loss: float | None, examples: int) -> None:
        """Counts one step. A loss that is no finite number, of a step that was skipped, is left out."""
        self.seen += examples
        if loss is not None and math.isfinite(loss):
            self._sum = _KEPT * self._sum + (1 - _KEPT) * loss
            self._weight = _KEPT * self._weight + 1 - _KEPT


@dataclass
class StageState:
    """How a stage stands."""

    info: StageInfo
    number: int
    evaluate_every: int
    tasks: dict[str, TaskState]
    step: int
    epoch: int = 0
    lr: float = 0.0
    recent: deque[tuple[float, Mapping[str, int]]] = field(default_factory=lambda: deque(maxlen=_RECENT_STEPS))
    evaluation_seconds: float = 0.0

    @property
    def share(self) -> float:
        """How much of the stage's steps is done, from 0 to 1."""
        return self.step / self.info.total_steps

    def rate(self, task: str | None = None) -> float:
        """Examples of a task, or of all, in a second of training."""
        recent = list(self.recent)  # the screen is drawn in a thread of its own
        seconds = sum(each for each, _ in recent)
        examples = sum(sum(counts.values()) if task is None else counts.get(task, 0) for _, counts in recent)
        return examples / seconds if seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Until the stage ends, evaluations included; None before the first step."""
        recent = list(self.recent)
        if not recent:
            return None
        steps = self.info.total_steps - self.step
        evaluations = -(-self.info.total_steps // self.evaluate_every) - self.step // self.evaluate_every
        mean = sum(each for each, _ in recent) / len(recent)
        return steps * mean + evaluations * self.evaluation_seconds


class Progress(Observer):
    """Keeps account of a run, and says each thing that happens once. Subclasses show how it stands in between."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.began = time.monotonic()
        self.stage: StageState | None = None
        self.scored: tuple[int, int] | None = None
        self._best: dict[str, float] = {}
        self._evaluation_began = 0.0

    def say(self, text: str) -> None:
        """Puts a line on stderr. Where nobody reads it any more, training goes on."""
        with suppress(OSError):
            print(text, file=sys.stderr)

    def stage_started(self, stage: StageInfo) -> None:
        """Says what the stage and one epoch of it are."""
        number = next(index for index, each in enumerate(self.recipe.stages) if each.name == stage.name)
        epochs = stage.total_steps / stage.epoch_steps
        expected = {task: epochs * examples for task, examples in stage.epoch_examples.items()}
        done = stage.first_step / stage.total_steps
        tasks = {
            task: TaskState(expected[task], done * expected[task], best=self._best.get(task)) for task in stage.tasks
        }
        every = self.recipe.stages[number].evaluate_every_steps or stage.epoch_steps
        self.stage = StageState(stage, number + 1, every, tasks, step=stage.first_step)
        counts = ", ".join(f"{task} {examples:,}" for task, examples in stage.epoch_examples.items())
        self.say(
            f"stage {stage.name} ({number + 1} of {len(self.recipe.stages)}): {stage.total_steps:,} steps; "
            f"an epoch is {stage.epoch_steps:,} steps, examples: {counts}"
        )
        if stage.first_step:
            self.say(f"going on at step {stage.first_step + 1:,}")

    def stepped(self, record: "StepRecord") -> None:
        """Counts an update."""
        assert self.stage is not None
        self.stage.step, self.stage.epoch, self.stage.lr = record.step, record.epoch, record.lr
        self.stage.recent.append((record.seconds, record.examples))
        for task, state in self.stage.tasks.items():
            state.add(record.losses.get(task), record.examples.get(task, 0))

    def evaluating(self, examples: int, total: int) -> None:
        """Counts scored examples."""
        if self.scored is None:
            self._evaluation_began = time.monotonic()
        done = 0 if self.scored is None else self.scored[0]
        self.scored = (done + examples, total)

    def evaluated(self, evaluation: "Evaluation", step: int, *, is_best: bool) -> None:
        """Says the scores."""
        assert self.stage is not None
        if self.scored is not None:
            self.stage.evaluation_seconds = time.monotonic() - self._evaluation_began
        self.scored = None
        found: list[str] = []
        for task, scores in evaluation.tasks.items():
            metric = self.recipe.tasks[task].metric
            found.append(f"{task} {metric} {score(scores[metric])}")
            if task in self.stage.tasks:
                self._keep_best(task, metric, float(scores[metric]))
        found.append(f"overall {score(evaluation.overall)}")
        self.say(f"{self._clock()}  dev after step {step:,}: {'  '.join(found)}{'  (best so far)' if is_best else ''}")

    def event(self, text: str) -> None:
        """Says it."""
        self.say(text)

    def _keep_best(self, task: str, metric: str, value: float) -> None:
        from manyhead.recipe.schema import METRICS

        assert self.stage is not None
        better = max if METRICS[metric].higher_is_better else min
        self._best[task] = better(self._best.get(task, value), value)
        self.stage.tasks[task].dev, self.stage.tasks[task].best = value, self._best[task]

    def _clock(self) -> str:
        return duration(time.monotonic() - self.began)

    def _place(self, stage: StageState) -> str:
        epoch = f"epoch {stage.epoch + 1:,} of {stage.info.epochs:,}"
        return f"{epoch}  step {stage.step:,} of {stage.info.total_steps:,}  lr {stage.lr:.1e}"


class Lines(Progress):
    """A plain line about every ten seconds, and at each evaluation."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self._said = time.monotonic()

    def stepped(self, record: "StepRecord") -> None:
        """Counts an update and, from time to time, says how it goes."""
        super().stepped(record)
        if time.monotonic() - self._said >= LINE_SECONDS:
            self._say_step()

    def evaluating(self, examples: int, total: int) -> None:
        """Counts scored examples and, from time to time, says how many."""
        if self.scored is None:
            self._say_step()
        super().evaluating(examples, total)
        if self.scored is not None and time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            self.say(f"{self._clock()}  evaluating: {self.scored[0]:,} of {total:,} examples")

    def _say_step(self) -> None:
        stage = self.stage
        if stage is None or not stage.recent:
            return
        self._said = time.monotonic()
        losses = "  ".join(f"{task} {state.loss:.4f}" for task, state in stage.tasks.items() if state.loss is not None)
        left = stage.seconds_left
        self.say(
            f"{self._clock()}  {self._place(stage)}  loss {losses}  {stage.rate():.1f} examples/s"
            f"{'' if left is None else f'  left about {duration(left)}'}"
        )


class Screen(Progress):
    """A picture of the run that is drawn anew four times a second; what is said goes above it."""

    def __init__(self, recipe: Recipe, console: Console) -> None:
        super().__init__(recipe)
        self._console = console

    def say(self, text: str) -> None:
        """Puts a line above the picture, while there is a terminal."""
        with suppress(OSError):
            self._console.print(Text(text))

    def __rich__(self) -> Group:
        stage = self.stage
        if stage is None:
            return Group(Text(f"{self.recipe.name}: reading encoder and data  {self._clock()}"))
        head = Text(
            f"{self.recipe.name}  stage {stage.info.name} ({stage.number} of {len(self.recipe.stages)})", "bold"
        )
        place = Text(f"{self._place(stage)}  elapsed {self._clock()}")
        scored = "" if self.scored is None else f"evaluating: {self.scored[0]:,} of {self.scored[1]:,} examples"
        return Group(Text(), head, place, self._bar(stage), Text(), self._tasks(stage), Text(scored))

    def _bar(self, stage: StageState) -> Table:
        left = stage.seconds_left
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_row(
            ProgressBar(stage.info.total_steps, stage.step, width=_BAR_WIDTH, complete_style="green"),
            Text(f"{stage.share:.0%}"),
            Text("" if left is None else f"left about {duration(left)}"),
        )
        return grid

    def _tasks(self, stage: StageState) -> RenderableType:
        rows: list[tuple[str, ...]] = []
        for name, state in stage.tasks.items():
            left = None if stage.seconds_left is None else (0.0 if state.share >= 1 else stage.seconds_left)
            rows.append(
                (
                    name,
                    self.recipe.tasks[name].metric,
                    score(state.dev),
                    score(state.best),
                    "-" if state.loss is None else f"{state.loss:.4f}",
                    f"{stage.rate(name):.1f}",
                    f"{state.share:.0%}",
                    "-" if left is None else duration(left),
                )
            )
        columns = ("task", "metric", "dev", "best", "loss", "examples/s", "done", "left")
        return table(columns, rows, left=2)


@contextmanager
def progress_of(recipe: Recipe, *, quiet: bool) -> Generator[Observer]:
    """Who watches a run: a `Screen` where stderr is a terminal, `Lines` where it is not, nobody with ``quiet``."""
    if quiet:
        yield Observer()
        return
    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield Lines(recipe)
        return
    screen = Screen(recipe, console)
    with Live(screen, console=console, transient=True, redirect_stdout=False) as live:
        # A second Ctrl-C ends the process at once: nothing could bring a hidden cursor back then.
        live.console.show_cursor(True)
        yield screen
