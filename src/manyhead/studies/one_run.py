"""Training one run of a study, and saying in a word how it ended."""

import sys
from pathlib import Path

from manyhead.build import train
from manyhead.errors import DivergedError, ManyheadError
from manyhead.evaluation.evaluate import Evaluation
from manyhead.recipe.load import load_recipe
from manyhead.studies.folder import Outcome
from manyhead.training.observer import Observer, StageInfo

_REASON_CHARS = 240


class _StageReachedError(Exception):
    """The stage before which a run is to end begins."""


class Log(Observer):
    """A line on standard error for each stage, evaluation and event. Ends the run before the stage named ``until``."""

    def __init__(self, until: str | None = None) -> None:
        self._until = until

    def stage_started(self, stage: StageInfo) -> None:
        """Says which stage, and how long it is."""
        if stage.name == self._until:
            raise _StageReachedError
        print(f"stage {stage.name}: steps {stage.first_step} to {stage.total_steps}", file=sys.stderr)

    def evaluated(self, evaluation: Evaluation, step: int, *, is_best: bool) -> None:
        """Says the scores."""
        best = " (best so far)" if is_best else ""
        print(f"step {step}: overall {evaluation.overall}{best}", file=sys.stderr)

    def event(self, text: str) -> None:
        """Says it."""
        print(text, file=sys.stderr)


def train_one(recipe: Path, run: Path, until: int | None) -> tuple[Outcome, int]:
    """Trains, or goes on with, ``recipe`` in the folder ``run``: how it ended, and the exit code.

    With ``until``, it ends before the stage of that index, all of the stages before it saved.
    """
    try:
        loaded = load_recipe(recipe)
        log = Log(None if until is None else loaded.recipe.stages[until].name)
        train(loaded, out=run, resume=True, observer=log)
    except _StageReachedError:
        print("the stages that are shared are done", file=sys.stderr)
    except ManyheadError as error:
        print(error, file=sys.stderr)
        return Outcome("diverged" if isinstance(error, DivergedError) else "failed", _reason(error)), error.exit_code
    return Outcome("finished"), 0


def _reason(error: ManyheadError) -> str:
    """The error in one line; the log has all of it."""
    first, *more = str(error).splitlines() or [type(error).__name__]
    short = first if len(first) <= _REASON_CHARS else f"{first[: _REASON_CHARS - 3]}..."
    return f"{short} (and {len(more)} more)" if more else short
