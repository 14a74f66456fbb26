"""What a run says of itself: state.json while it runs, summary.json when it is done."""

import hashlib
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from manyhead.build.calibrating import told_calibration
from manyhead.build.parts import Parts
from manyhead.build.teachers import teacher_hashes
from manyhead.build.trainable import stage_parameters
from manyhead.data.selection import scored_rows, selection_note
from manyhead.encoder.source import locate_encoder
from manyhead.errors import UsageError
from manyhead.evaluation.errors.calibration import Temperature
from manyhead.evaluation.evaluate import Evaluation
from manyhead.evaluation.metrics import majority_baseline, task_scores
from manyhead.files import sha256_of
from manyhead.inference.model_folder import weights_of
from manyhead.training.stages import StageRunner

_PACKAGES = ("manyhead", "torch", "transformers", "tokenizers", "safetensors", "numpy")


def state_of(parts: Parts) -> dict[str, Any]:
    """state.json of a new run: versions, hardware, and hashes of data, labels, the encoder's weights and teachers."""
    return {
        "status": "new",
        "created": now(),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
        "hardware": parts.hardware.describe(),
        "data": {
            f"{task}.{split}": {"rows": data.n_examples, "data": data.data_hash, "labels": data.label_hash}
            for (task, split), data in parts.data.items()
        },
        "encoder": {"weights": _encoder_hash(parts)},
        "teachers": teacher_hashes(parts.recipe),
        "start": parts.start.as_dict(),
    }


def summary_of(
    parts: Parts, runner: StageRunner, final: Evaluation | None, calibration: Mapping[str, Temperature]
) -> dict[str, Any]:
    """summary.json: dev scores of the best weights beside the baseline, and what training them took."""
    progress = runner.progress
    return {
        "name": parts.recipe.name,
        "seed": parts.recipe.seed,
        "status": "finished",
        "dev": None if final is None else final.as_dict(),
        "overall": None if final is None else final.overall,
        "overall_raw": None if final is None else final.overall_raw,
        "intervals": _intervals(final),
        "baseline": {"tasks": _baseline(parts)},
        "primary": dict(runner.primary),
        "selection": None if final is None else selection_note(parts.recipe),
        "calibration": told_calibration(parts.recipe, calibration),
        "best": {
            "stage": runner.plans[progress.stage].options.name,
            "step": progress.best_step,
            "score": progress.best_score,
        },
        "steps": progress.step,
        "skipped": progress.skipped,
        "seconds": round(progress.seconds, 3),
        "examples": progress.examples,
        "tokens": progress.tokens,
        "parameters": stage_parameters(parts.recipe, parts.tables, parts.config),
        "hardware": parts.hardware.describe(),
    }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _intervals(final: Evaluation | None) -> dict[str, dict[str, Any]]:
    """Of each task's own dev score and of the means, by name."""
    from manyhead.evaluation.statistics.intervals import intervals_of

    if final is None:
        return {}
    found = intervals_of(final.scored, means=final.overall is not None)
    return {name: each.as_dict() for name, each in found.items()}


def _baseline(parts: Parts) -> dict[str, dict[str, float | int]]:
    """Dev scores of predicting the most frequent training class, or the mean training score."""
    found: dict[str, dict[str, float | int]] = {}
    train_data = parts.split("train")
    for name, dev in scored_rows(parts.recipe, parts.split("dev")).items():
        task = parts.recipe.tasks[name]
        train_targets = train_data[name].targets if name in train_data else None
        if train_targets is not None and dev.targets is not None:
            guess = majority_baseline(task.kind, train_targets, dev.targets)
            found[name] = task_scores(task.kind, guess, dev.targets, task.range, len(task.label_names))
    return found


def _encoder_hash(parts: Parts) -> str | None:
    """sha256 of the weights that the recipe's encoder has here; None where it cannot be looked at."""
    source = parts.source
    if source is None:
        path = Path(parts.recipe.encoder.checkpoint)
        if not path.is_dir():
            return None
        try:
            source = locate_encoder(str(path), None)
        except UsageError:
            return None
    files = [weights_of(source.folder)] if source.kind == "manyhead" else sorted(source.folder.glob("*.safetensors"))
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()
