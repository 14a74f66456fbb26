"""``manyhead train``: from a recipe to a run."""

from typing import Annotated

import typer

from manyhead.cli.options import AllowChange, DataDir, Json, Out, Overrides, Quiet, RecipeName, Resume, listed
from manyhead.cli.output import speaking
from manyhead.cli.training import command_line, next_steps, run_training, scores_shown

EXAMPLES = (
    "manyhead train my.yaml",
    "manyhead train cs224n-cpu --data-dir data/cs224n --out runs/first",
    "manyhead train my.yaml --seed 2 --set stages.0.epochs=1",
    "manyhead train my.yaml --resume",
)


def train(
    recipe: RecipeName,
    *,
    out: Out = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Replaces the recipe's seed.")] = None,
    resume: Resume = False,
    allow_changes: AllowChange = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the model that a recipe describes."""
    from manyhead.recipe.load import load_recipe

    options = {
        "out": out,
        "seed": seed,
        "data-dir": data_dir,
        "allow-change": listed(allow_changes),
        "set": listed(overrides),
        "json": as_json,
        "quiet": quiet,
    }
    with speaking(as_json=as_json, quiet=quiet) as output:
        loaded = load_recipe(recipe, overrides=listed(overrides), data_dir=data_dir, seed=seed)
        command = command_line("train", recipe, **options)
        run = run_training(
            loaded, out=out, resume=resume, allow_changes=listed(allow_changes), output=output, command=command
        )
        if as_json:
            output.document({**run.summary, "run": str(run.path)})
        elif not quiet:
            output.show("", *scores_shown(run.summary), "", *next_steps(run.path, next(iter(loaded.recipe.tasks))))
