"""Everything that can be said of a task's errors, in one."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from manyhead.evaluation.errors.buckets import ScoreErrors, score_errors_of
from manyhead.evaluation.errors.calibration import Calibration, calibration_of
from manyhead.evaluation.errors.confusion import Confusion, confusion_of
from manyhead.evaluation.errors.labels import LabelSuspicions, label_suspicions_of
from manyhead.evaluation.errors.mistakes import MOST, Example, mistakes_of
from manyhead.evaluation.errors.slices import FEWEST, RESAMPLES, Slice, slices_of
from manyhead.evaluation.metrics import constant_sides
from manyhead.evaluation.scored import Scored


@dataclass(frozen=True)
class ErrorAnalysis:
    """The errors of a task on ``n`` examples.

    A part that the task has not, or of which nothing can be said, is None. ``notes`` says why, and what to be careful
    with. The rows of examples are places among the ``n``.
    """

    task: str
    kind: str
    metric: str
    n: int
    confusion: Confusion | None
    scores: ScoreErrors | None
    calibration: Calibration | None
    slices: tuple[Slice, ...] | None
    mistakes: tuple[Example, ...]
    labels: LabelSuspicions | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def analyse(scored: Scored, *, most: int = MOST, resamples: int = RESAMPLES) -> ErrorAnalysis:
    """All views that fit the task.

    Args:
        scored: At least one prediction. Those that are no finite numbers are left out, and counted in ``notes``.
        most: Examples in each list.
        resamples: Of the slices' intervals.
    """
    finite = _finite(scored)
    notes = _notes(scored, finite)
    if not finite.n:
        return ErrorAnalysis(scored.task, scored.kind, scored.metric, 0, None, None, None, None, (), None, (*notes,))
    is_classes = finite.kind == "classification"
    slices = labels = None
    try:
        slices = slices_of(finite, resamples=resamples)
    except ValueError as error:
        notes.append(f"slices are left out: {error}")
    try:
        labels = label_suspicions_of(finite, most)
    except ValueError as error:
        notes.append(f"likely label errors are left out: {error}")
    if is_classes and finite.probabilities is None:
        notes.append("calibration is left out: there are no probabilities")
    return ErrorAnalysis(
        task=finite.task,
        kind=finite.kind,
        metric=finite.metric,
        n=finite.n,
        confusion=confusion_of(finite) if is_classes else None,
        scores=None if is_classes else score_errors_of(finite),
        calibration=None if finite.probabilities is None else calibration_of(finite),
        slices=slices,
        mistakes=mistakes_of(finite, most),
        labels=labels,
        notes=tuple(notes),
    )


def _finite(scored: Scored) -> Scored:
    finite = np.isfinite(scored.values) & np.isfinite(scored.targets)
    if scored.probabilities is not None:
        finite &= np.isfinite(scored.probabilities).all(1)
    return scored if finite.all() else scored.take(finite)


def _notes(scored: Scored, finite: Scored) -> list[str]:
    notes: list[str] = []
    if finite.n < scored.n:
        notes.append(f"{scored.n - finite.n} of {scored.n} examples have no finite prediction and are left out")
    if 0 < finite.n < FEWEST:
        notes.append(f"{finite.n} {'example' if finite.n == 1 else 'examples'}: too few to say much")
    if finite.n:
        notes += [f"all {side} are the same" for side in constant_sides(finite.values, finite.targets)]
    return notes
