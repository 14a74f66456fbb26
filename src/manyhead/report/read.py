"""What a run folder holds, read for a report.

A run may have been stopped at any moment, so every file may be missing, cut short or odd. Nothing of that is an
error: what cannot be read is left out, and ``missing`` and ``notes`` say so for the page.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from manyhead.report.cells import mapping, number
from manyhead.report.predictions import Predictions, read_predictions

Points = list[tuple[int, float]]
"""(step, value) in order of steps, all finite."""

RUN_FILES = ("recipe.yaml", "state.json", "metrics.jsonl", "summary.json")


@dataclass
class Run:
    """The parts of a run folder that a report shows. A missing part is empty."""

    folder: Path
    recipe_text: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    losses: dict[str, Points] = field(default_factory=dict)
    rates: Points = field(default_factory=list)
    """Learning rates."""
    norms: Points = field(default_factory=list)
    """Norms of the whole gradient, before it was clipped."""
    task_norms: dict[str, Points] = field(default_factory=dict)
    """Norms of each task's own gradient, of the steps that logged them."""
    cosines: dict[tuple[str, str], Points] = field(default_factory=dict)
    """Pair of tasks to the cosine between their gradients, of the steps that logged it."""
    evaluations: list[Mapping[str, Any]] = field(default_factory=list)
    """Records of dev evaluations with a step, in order."""
    stages: dict[str, int] = field(default_factory=dict)
    """Stage to its first recorded step."""
    maps: Mapping[str, Any] = field(default_factory=dict)
    """Task to its sentence map, as maps.json has it."""
    predictions: dict[str, Predictions] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """Files that a finished run has and this one has not."""
    notes: list[str] = field(default_factory=list)
    """What else could not be read, in sentences."""

    @property
    def span(self) -> tuple[int, int] | None:
        """First and last step of which anything was recorded."""
        ends = [points[end][0] for points in self.losses.values() for end in (0, -1)]
        ends += [record["step"] for record in self.evaluations]
        return (min(ends), max(ends)) if ends else None

    @property
    def tasks(self) -> list[str]:
        """All tasks that any file speaks of, in the recipe's order."""
        evaluated = [task for record in self.evaluations for task in mapping(record.get("tasks"))]
        scored = mapping(mapping(self.summary.get("dev")).get("tasks"))
        return list(dict.fromkeys([*mapping(self.recipe.get("tasks")), *scored, *self.losses, *evaluated]))

    def metric(self, task: str) -> str | None:
        """The task's own metric, where the summary or the recipe says."""
        recipe = mapping(mapping(self.recipe.get("tasks")).get(task))
        named = mapping(self.summary.get("primary")).get(task) or recipe.get("metric")
        return str(named) if named else None


def read_run(folder: Path) -> Run:
    """Read what there is in ``folder``."""
    run = Run(folder)
    run.recipe_text = _read(run, "recipe.yaml", str) or ""
    run.recipe = mapping(_read(run, "recipe.yaml", yaml.safe_load) if run.recipe_text else None)
    run.state = mapping(_read(run, "state.json", json.loads))
    run.summary = mapping(_read(run, "summary.json", json.loads))
    if (folder / "maps.json").is_file():
        run.maps = mapping(mapping(_read(run, "maps.json", json.loads)).get("tasks"))
    _read_metrics(run)
    for task in run.tasks:
        _read_predictions(run, task)
    return run


def _read(run: Run, name: str, parse: Callable[[str], Any]) -> Any:
    """The parsed file, or None with a note."""
    try:
        return parse((run.folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        run.missing.append(name)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        run.notes.append(f"{name} cannot be read: {error}")
    return None


def _read_metrics(run: Run) -> None:
    """Collect losses, evaluations and stages line by line."""
    unreadable = unusable = 0
    try:
        with (run.folder / "metrics.jsonl").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    unreadable += 1
                    continue
                unusable += _add_record(run, record)
    except FileNotFoundError:
        run.missing.append("metrics.jsonl")
    except OSError as error:
        run.notes.append(f"metrics.jsonl cannot be read to its end: {error}")
    if unreadable:
        run.notes.append(f"Lines of metrics.jsonl that cannot be read and are left out: {unreadable:,}.")
    if unusable:
        run.notes.append(f"Losses that are not finite numbers and are not drawn: {unusable:,}.")


def _add_record(run: Run, record: object) -> int:
    """Add one record to the run; returns how many of its losses cannot be drawn."""
    if not isinstance(record, Mapping) or not isinstance(step := record.get("step"), int) or number(step) is None:
        return 0
    kind, unusable = record.get("kind"), 0
    if kind == "step":
        run.stages.setdefault(str(record.get("stage")), step)
        for task, value in mapping(record.get("losses")).items():
            if (loss := number(value)) is None:
                unusable += 1
            else:
                run.losses.setdefault(task, []).append((step, loss))
        for key, points in (("lr", run.rates), ("grad_norm", run.norms)):
            if (value := number(record.get(key))) is not None:
                points.append((step, value))
        for task, value in mapping(record.get("grad_norms")).items():
            if (norm := number(value)) is not None:
                run.task_norms.setdefault(task, []).append((step, norm))
        _add_cosines(run, step, record)
    elif kind == "eval" and record.get("split", "dev") == "dev":
        run.evaluations.append(record)
    return unusable


def _add_cosines(run: Run, step: int, record: Mapping[str, Any]) -> None:
    """The cosines above the diagonal, which come in the order of the losses."""
    rows, tasks = record.get("cosines"), list(mapping(record.get("losses")))
    if not isinstance(rows, list):
        return
    for first, row in enumerate(rows[: len(tasks)]):
        for second in range(first + 1, min(len(row), len(tasks)) if isinstance(row, list) else 0):
            if (cosine := number(row[second])) is not None and abs(cosine) <= 1:
                run.cosines.setdefault((tasks[first], tasks[second]), []).append((step, cosine))


def _read_predictions(run: Run, task: str) -> None:
    name = f"predictions/{task}.dev.csv"
    try:
        found = read_predictions(run.folder / name, task, mapping(mapping(run.recipe.get("tasks")).get(task)))
    except FileNotFoundError:
        run.missing.append(name)
    except (OSError, ValueError) as error:
        run.notes.append(f"{name} cannot be read: {error}")
    else:
        run.predictions[task] = found
