"""Errors a user can cause, and the exit code each one ends a command with.

Every message says what was wrong, where, what was expected and what to do. Anything else that escapes is a bug
of ours and shows a traceback.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe or with data.

    Printed on one line: ``PATH:LINE: KEY: problem; expected ...; do ...``. Parts that do not apply are left out.
    """

    problem: str
    path: Path | str | None = None
    line: int | None = None
    key: str | None = None
    expected: str | None = None
    do: str | None = None

    def __str__(self) -> str:
        place = "" if self.path is None else str(self.path)
        if place and self.line is not None:
            place += f":{self.line}"
        head = ": ".join(part for part in (place, self.key, self.problem) if part)
        tail = [head]
        if self.expected:
            tail.append(f"expected {self.expected}")
        if self.do:
            tail.append(self.do)
        return "; ".join(tail)


class ManyheadError(Exception):
    """Base of all errors that a user can mend. ``exit_code`` is what a command ends with."""

    exit_code = 2


class UsageError(ManyheadError):
    """A command or call that cannot be carried out as given."""


class ProblemsError(ManyheadError):
    """Several problems, reported together, one line each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RecipeError(ProblemsError):
    """Everything wrong with a recipe."""


class DataError(ProblemsError):
    """Everything wrong with the data that a recipe names."""


class DivergedError(ManyheadError):
    """A loss or a gradient stopped being a finite number."""

    exit_code = 3


class CheckpointError(ManyheadError):
    """A checkpoint, a run or a model that cannot be used."""

    exit_code = 4


class WriteError(ManyheadError):
    """Something could not be written: the disk is full, the folder is read-only."""

    exit_code = 74


class StoppedError(ManyheadError):
    """A signal asked the run to stop; it saved and can go on with ``--resume``."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
