"""What a run tells whoever watches it: a screen, a log, a test."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manyhead.evaluation.evaluate import Evaluation
from manyhead.training.loop import StepRecord


@dataclass(frozen=True)
class StageInfo:
    """A stage that begins (or goes on at ``first_step`` > 0): its steps, and what an epoch is."""

    name: str
    tasks: tuple[str, ...]
    epochs: int
    first_step: int
    total_steps: int
    epoch_steps: int
    epoch_examples: Mapping[str, int]


class Observer:
    """Ignores everything; override what you want to see."""

    def stage_started(self, stage: StageInfo) -> None:
        """A stage begins or goes on."""

    def stepped(self, record: StepRecord) -> None:
        """An update was made."""

    def evaluating(self, examples: int, total: int) -> None:
        """``examples`` more of ``total`` were scored."""

    def evaluated(self, evaluation: Evaluation, step: int, *, is_best: bool) -> None:
        """Dev was scored after ``step`` of the stage."""

    def event(self, text: str) -> None:
        """Something worth one line happened."""

    def finished(self, summary: Mapping[str, Any]) -> None:
        """The run ended well."""
