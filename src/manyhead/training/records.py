"""The lines of metrics.jsonl."""

import math
from datetime import UTC, datetime
from typing import Any

from manyhead.evaluation.evaluate import Evaluation
from manyhead.training.loop import StepRecord
from manyhead.training.stage_plan import Progress


def step_line(stage: str, progress: Progress, record: StepRecord) -> dict[str, Any]:
    """What a step did. Numbers that are not finite are null; ``pieces`` and ``skipped`` are there where they matter."""
    extra: dict[str, Any] = {} if record.cosines is None else {"cosines": record.cosines}
    if record.grad_norms is not None:
        extra["grad_norms"] = {task: _finite(norm) for task, norm in record.grad_norms.items()}
    if progress.pieces is not None:
        extra["pieces"] = record.pieces
    if record.skipped:
        extra["skipped"] = True
    return {
        "kind": "step",
        "stage": stage,
        "step": progress.step,
        "epoch": record.epoch,
        "losses": {task: _finite(loss) for task, loss in record.losses.items()},
        "lr": record.lr,
        "grad_norm": _finite(record.grad_norm),
        **extra,
        "examples": record.examples,
        "tokens": record.tokens,
        "time": _clock(record.seconds),
    }


def evaluation_line(stage: str, progress: Progress, evaluation: Evaluation, seconds: float) -> dict[str, Any]:
    """Scores of dev after a step."""
    place = {"kind": "eval", "stage": stage, "step": progress.step, "split": "dev"}
    return {**place, **evaluation.as_dict(), "time": _clock(seconds)}


def event_line(text: str) -> dict[str, Any]:
    """Something that happened."""
    return {"kind": "event", "text": text, "time": _clock(0.0)}


def _finite(value: float) -> float | None:
    """A number as JSON has it, which knows only finite ones."""
    return value if math.isfinite(value) else None


def _clock(seconds: float) -> dict[str, Any]:
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(seconds, 6)}
