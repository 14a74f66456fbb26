"""What a report is about: one run, or several side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from manyhead.errors import UsageError
from manyhead.evaluation.scored import Scored
from manyhead.report.charts.canvas import Chart
from manyhead.report.read import RUN_FILES, read_run
from manyhead.report.task_part import MAX_CLASSES
from manyhead.report.view import RunPart, run_part

if TYPE_CHECKING:
    from manyhead.report.comparison import SideBySide

MAX_PARTS = 4
"""Runs that are shown with all their parts; of more, the others are in the comparison only."""


@dataclass(frozen=True)
class Report:
    """All that a page, figures and tables say."""

    runs: list[RunPart]
    together: "SideBySide | None" = None
    """Of several runs."""

    @property
    def tasks(self) -> list[str]:
        """The tasks of all runs."""
        return list(dict.fromkeys(task.name for run in self.runs for task in run.tasks))

    @property
    def names(self) -> list[str]:
        """A name for each run, all different."""
        return names_of(self.runs)

    def predictions(self, runs: int) -> dict[str, dict[str, Scored]]:
        """Task to the predictions of each of the first ``runs``, by its name."""
        return predictions_of(self.runs[:runs], self.names[:runs])

    def charts(self) -> Iterator[tuple[list[str], Chart]]:
        """All charts with the names, from run to task, of what they are of; a single run's name is left out."""
        if self.together is not None:
            drawn = [side.chart for side in self.together.sides if side.chart is not None]
            yield from (([], chart) for chart in [*drawn, *self.together.curves])
        for name, run in zip(self.names, self.runs, strict=True):
            of_run = [] if len(self.runs) == 1 else [name]
            yield from ((of_run, chart) for chart in [run.intervals, *run.charts] if chart is not None)
            for task in run.tasks:
                errors = task.errors
                of_errors = [] if errors is None else [*errors.charts, *errors.only_files]
                yield from (([*of_run, task.name], chart) for chart in [*task.charts, *of_errors])


def gather_report(run_dirs: Sequence[Path]) -> Report:
    """Read the runs. Those that were stopped early, or lost files, are taken as far as they go.

    Raises:
        UsageError: No run is given, or a folder holds none of a run's files.
    """
    folders = [Path(folder) for folder in run_dirs]
    strange = [folder for folder in folders if not any((folder / name).is_file() for name in RUN_FILES)]
    if strange or not folders:
        lines = [f"{folder}: not a run folder; expected one that holds {', '.join(RUN_FILES)}" for folder in strange]
        raise UsageError("\n".join(lines) or "no run is given; name one run folder or several")
    read = [read_run(folder) for folder in folders]
    runs = [run_part(run, with_errors=place < MAX_PARTS) for place, run in enumerate(read)]
    if len(runs) == 1:
        return Report(runs)
    from manyhead.report.comparison import side_by_side  # which opens runs, and so loads torch

    names = names_of(runs)
    return Report(runs, side_by_side(folders, read, names, predictions_of(runs, names)))


def names_of(runs: Sequence[RunPart]) -> list[str]:
    """A name for each run: the recipes' where they differ, else the folders', else numbered ones."""
    ways = ([run.name for run in runs], [run.folder for run in runs])
    numbered = [f"{run.name} ({place})" for place, run in enumerate(runs, 1)]
    return next((names for names in ways if len(set(names)) == len(names)), numbered)


def predictions_of(runs: Sequence[RunPart], names: Sequence[str]) -> dict[str, dict[str, Scored]]:
    """Task to the predictions of each run that has some, by its name."""
    found: dict[str, dict[str, Scored]] = {}
    for name, run in zip(names, runs, strict=True):
        for task in run.tasks:
            if task.scored is not None and len(task.scored.labels) <= MAX_CLASSES:
                found.setdefault(task.name, {})[name] = task.scored
    return found
