"""``manyhead quickstart``: three small tasks from the packaged sample, trained, scored and tried."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyhead.cli.options import Json, Out, Overrides, Quiet, Resume, listed
from manyhead.cli.output import speaking, table
from manyhead.cli.training import command_line, next_steps, run_training, scores_shown

if TYPE_CHECKING:
    from rich.console import RenderableType

EXAMPLES = (
    "manyhead quickstart",
    "manyhead quickstart --set stages.0.epochs=1 --out runs/short",
    "manyhead quickstart --resume",
)

RECIPE = "quickstart"

TRIALS: dict[str, list[tuple[str, ...]]] = {
    "reviews": [
        ("The soup was cold and nobody came to our table for an hour.",),
        ("A wonderful lamp: warm light, solid wood, and it arrived a day early.",),
    ],
    "questions": [
        ("Why do geese fly in a V?", "What makes geese form a V when they fly?"),
        ("Why do geese fly in a V?", "How long does a goose live?"),
    ],
    "sentences": [
        ("A dog runs along the beach.", "A dog is running by the sea."),
        ("A dog runs along the beach.", "The bank raised its fees in spring."),
    ],
}
"""What the trained model is tried on; none of it is in the sample."""

_OWN_DATA = (
    "The sample shows a model learn; 200 rows a task are too few to judge one by.",
    "For your own tables (CSV, TSV, JSONL, Parquet, Arrow, or hub:OWNER/NAME:train):",
    "  manyhead init train.csv dev.csv --out mine.yaml",
    "To start from a recipe that is known to work:",
    "  manyhead recipes ls",
)


def quickstart(
    out: Out = None, resume: Resume = False, overrides: Overrides = None, as_json: Json = False, quiet: Quiet = False
) -> None:
    """Train three tasks on the packaged sample and try the model.

    One encoder, three heads: grades of reviews, same questions, similar sentences. Needs no data and no network, takes
    about a minute on a CPU, and leaves a run with a report in runs/quickstart.
    """
    from manyhead.recipe.load import load_recipe

    options = {"out": out, "set": listed(overrides), "json": as_json, "quiet": quiet}
    with speaking(as_json=as_json, quiet=quiet) as output:
        loaded = load_recipe(RECIPE, overrides=listed(overrides))
        command = command_line("quickstart", **options)
        run = run_training(loaded, out=out, resume=resume, output=output, command=command)
        tried = try_model(run.path)
        if as_json:
            output.document({**run.summary, "run": str(run.path), "predictions": tried})
        elif not quiet:
            task = next(iter(loaded.recipe.tasks))
            output.show("", *scores_shown(run.summary), "", *_shown(tried), *next_steps(run.path, task), "", *_OWN_DATA)


def try_model(run: Path) -> dict[str, list[dict[str, Any]]]:
    """What the run's model predicts for `TRIALS`, by task."""
    from manyhead.inference.predictor import Model

    model = Model.load(run)
    return {
        task: [
            {
                "texts": list(texts),
                "prediction": found.value,
                "label": found.label,
                "probabilities": found.probabilities,
            }
            for texts, found in zip(trials, model.predict(task, trials), strict=True)
        ]
        for task, trials in TRIALS.items()
        if task in model.tasks
    }


def _shown(tried: dict[str, list[dict[str, Any]]]) -> "list[RenderableType]":
    rows = [
        (
            task,
            "\n".join(trial["texts"]),
            _answer(trial),
        )
        for task, trials in tried.items()
        for trial in trials
    ]
    return [table(("task", "new text", "prediction"), rows, left=3), ""]


def _answer(trial: dict[str, Any]) -> str:
    if trial["probabilities"] is None:
        return f"{trial['prediction']:.2f}"
    return f"{trial['label']} ({trial['probabilities'][trial['label']]:.0%})"
