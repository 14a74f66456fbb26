"""Writing a run that was trained, or is being trained, into a tracker."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from manyhead.errors import RecipeError, UsageError, WriteError
from manyhead.recipe.load import load_recipe
from manyhead.recipe.overrides import Place
from manyhead.recipe.schema import Options
from manyhead.recipe.yaml_text import parse_value
from manyhead.trackers.base import Status, read_record
from manyhead.tracking.jobs import problem, start
from manyhead.tracking.run import missing_packages
from manyhead.training.run_folder import METRICS, RECIPE, RunFolder, open_run


@dataclass(frozen=True)
class Tracked:
    """What a tracker was given: so many ``records`` of a run, and how that ended."""

    run: Path
    tracker: str
    status: Status
    records: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"run": str(self.run), "tracker": self.tracker, "status": self.status, "records": self.records}


def track_run(run: Path, to: str) -> Tracked:
    """Writes all that metrics.jsonl of ``run`` holds into the tracker ``to``, in place of what that had of the run.

    ``to`` is a kind or ``{kind: ..., ...}``, as recipes have it. A kind alone has the options of the run's own recipe,
    where that names it. Raises `CheckpointError` where there is no run, `RecipeError` for a tracker that is none or is
    not installed, `UsageError` where the run is writing it just now, and `WriteError` where the tracker fails.
    """
    folder = open_run(run)
    options = _options(run, to)
    status = folder.read_state()["status"]
    status = status if status in get_args(Status) else "killed"
    job = {"run": str(run.resolve()), "id": folder.id, "tracker": options.model_dump(by_alias=True)}
    _check_free(folder, options)
    process = start("worker", job, stderr=subprocess.STDOUT)
    try:
        output, _ = process.communicate(status.encode())
    except BaseException:  # Ctrl-C ends the tracker as well, which has a session of its own
        process.kill()
        process.wait()
        raise
    failed = problem(process.returncode, output)
    if failed is not None:
        raise WriteError(f"tracker {options.kind}: {failed}; expected it to take {run / METRICS}; see its own manual")
    return Tracked(run, options.kind, status, _count(run / METRICS))


def _options(run: Path, to: str) -> Options:
    own = {options.kind: options for options in load_recipe(run / RECIPE).recipe.trackers}
    value = own[to].model_dump(by_alias=True) if to in own else parse_value(to)
    loaded = load_recipe(run / RECIPE, settings=[(("trackers",), [value], Place("--to"))])
    problems = list(missing_packages(loaded.recipe))
    if problems:
        raise RecipeError(problems)
    return loaded.recipe.trackers[0]


def _check_free(folder: RunFolder, options: Options) -> None:
    """A run that is being trained writes its own trackers itself."""
    own = load_recipe(folder.path / RECIPE).recipe.trackers
    if any(options.kind == each.kind for each in own):
        try:
            with folder.locked():
                pass
        except UsageError as error:
            raise UsageError(
                f"{folder.path}: is being trained and writes {options.kind} itself; wait for it, or stop it"
            ) from error


def _count(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        return sum(read_record(line, step=0) is not None for line in lines)
