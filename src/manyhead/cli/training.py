"""What `train` and `quickstart` share: a run under a screen, and what is said of it at its end."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from manyhead.cli.output import Output, duration, interval_ends, score, table
from manyhead.errors import StoppedError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from manyhead.build import Run
    from manyhead.recipe.load import LoadedRecipe


def command_line(verb: str, *arguments: str, **options: object) -> list[str]:
    """The words of a command that was given ``options``: those that are None, False or empty are left out."""
    words = ["manyhead", verb, *arguments]
    for name, value in options.items():
        for each in cast("list[object]", value) if isinstance(value, list) else [value]:
            if each is True:
                words.append(f"--{name}")
            elif each is not None and each is not False:
                words += [f"--{name}", str(each)]
    return words


def run_training(
    loaded: "LoadedRecipe",
    *,
    out: Path | None,
    resume: bool,
    output: Output,
    command: Sequence[str],
    allow_changes: Sequence[str] = (),
) -> "Run":
    """Trains, or goes on with, a recipe. Where the run is stopped, the error says how ``command`` goes on."""
    from manyhead.training.run_folder import check_free

    path = out or Path("runs") / loaded.recipe.name
    if not (resume and path.exists()):
        check_free(path)
    from manyhead.build import train
    from manyhead.cli.progress import progress_of

    try:
        with progress_of(loaded.recipe, quiet=output.quiet) as observer:
            return train(loaded, out=path, resume=resume, allow_changes=allow_changes, observer=observer)
    except StoppedError as error:
        message = f"{error}\n  {shlex.join([*command, '--resume'])}"
        raise StoppedError(message, error.exit_code - 128) from None


def scores_shown(summary: Mapping[str, Any]) -> "list[RenderableType]":
    """Dev scores per task beside what a guess without reading gets, and over tasks."""
    dev: Mapping[str, Any] | None = summary["dev"]
    if dev is None:
        return ["No task has dev data, so nothing was scored."]
    baseline: Mapping[str, Mapping[str, float]] = summary["baseline"]["tasks"]
    ends = {name: interval_ends(each["low"], each["high"]) for name, each in summary.get("intervals", {}).items()}
    rows: list[tuple[object, ...]] = []
    for task, scores in dev["tasks"].items():
        metric = summary["primary"][task]
        guess = baseline.get(task, {}).get(metric)
        rows.append((task, metric, score(scores[metric]), ends.get(task, ""), score(guess), f"{scores['n']:,}"))
    for name, what in (("overall", "mean, correlations as (r+1)/2"), ("overall_raw", "mean")):
        rows.append((name, what, score(dev[name]), ends.get(name, ""), "", ""))
    seconds = (
        f"{summary['steps']:,} steps in {duration(summary['seconds'])}, best after step {summary['best']['step']:,}"
    )
    note = [] if summary["selection"] is None else [f"scores: {summary['selection']}"]
    return [
        table(("task", "metric", "dev", "95 % interval", "majority baseline", "n"), rows, left=2),
        "",
        *note,
        seconds,
    ]


def next_steps(run: Path, task: str) -> list[str]:
    """What can be done with a finished run."""
    place, page = shlex.quote(str(run)), run / "report.html"
    return [
        f"run:     {run}",
        *([f"report:  {page}"] if page.is_file() else []),
        "next:",
        f"  manyhead evaluate {place}",
        f"  manyhead predict {place} --task {task} --input FILE --output predictions.csv",
    ]
