"""``manyhead init``: a first recipe for a user's files."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from manyhead.cli.options import Json, Quiet
from manyhead.cli.output import speaking
from manyhead.cli.recipes import check_new, write_new

EXAMPLES = (
    "manyhead init train.csv dev.csv",
    "manyhead init sst-train.tsv sst-dev.tsv nli.jsonl --out mine.yaml",
)


@dataclass(frozen=True)
class Guess:
    """A guessed recipe that loads, and its tasks in a few words each."""

    text: str
    tasks: dict[str, str]


def init(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", show_default=False, help="Your tables, of one task or several.")
    ],
    out: Annotated[Path | None, typer.Option("--out", metavar="R", help="Write the recipe to this file.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="N", help="Name of the recipe.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print a recipe for your files, every guess with its reason."""
    with speaking(as_json=as_json, quiet=quiet) as output:
        if out is not None:
            check_new(out)
        guess = guess_checked(files, name)
        if out is not None:
            write_new(out, guess.text)
        if as_json:
            output.document({"recipe": guess.text, "tasks": list(guess.tasks)})
        elif out is None:
            output.show(guess.text.rstrip("\n"))
        output.note(*(f"{task}: {what}" for task, what in guess.tasks.items()))
        output.note(f"next: look at the guesses, then: manyhead check {out or 'RECIPE'}")


def guess_checked(files: list[Path], name: str | None) -> Guess:
    """A recipe for ``files`` that has been loaded once. Raises `UsageError` and `DataError` for unusable files."""
    from manyhead.data.guess import guess_recipe
    from manyhead.recipe.load import load_recipe

    text = guess_recipe(files, name=name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "guessed.yaml"
        path.write_text(text, encoding="utf-8")
        recipe = load_recipe(path).recipe
    described = {
        task: f"{options.kind} of {' and '.join(options.text)}, target {options.target}"
        for task, options in recipe.tasks.items()
    }
    return Guess(text, described)
