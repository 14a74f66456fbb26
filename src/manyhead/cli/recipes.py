"""``manyhead recipes``: the recipes that ship with the package."""

from pathlib import Path
from typing import Annotated, Any

import typer

from manyhead.cli.options import Json, Quiet, examples
from manyhead.cli.output import speaking, table
from manyhead.errors import UsageError

app = typer.Typer(
    name="recipes",
    help="List, show and copy the recipes that ship with the package.",
    epilog=examples("manyhead recipes ls", "manyhead recipes cp cs224n my.yaml"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="Name of a shipped recipe.")]


@app.command("ls", epilog=examples("manyhead recipes ls", "manyhead recipes ls --json"))
def list_recipes(as_json: Json = False, quiet: Quiet = False) -> None:
    """List the shipped recipes."""
    with speaking(as_json=as_json, quiet=quiet) as output:
        found = shipped()
        if as_json:
            output.document({"recipes": found})
        else:
            rows = [(entry["name"], entry["study"] or "", entry["title"]) for entry in found]
            output.show(table(("recipe", "study", "title"), rows, left=3))
            output.note("", "manyhead recipes show NAME prints one, cp NAME copies it")


@app.command(epilog=examples("manyhead recipes show cs224n", "manyhead recipes show template > my.yaml"))
def show(name: Name, as_json: Json = False, quiet: Quiet = False) -> None:
    """Print a shipped recipe as complete YAML."""
    from manyhead.recipe.shipped import shipped_text

    with speaking(as_json=as_json, quiet=quiet) as output:
        text = shipped_text(name)
        if as_json:
            output.document({"name": name, "recipe": text})
        else:
            output.show(text.rstrip("\n"))


@app.command(epilog=examples("manyhead recipes cp cs224n", "manyhead recipes cp template my.yaml"))
def cp(
    name: Name,
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", show_default=False, help="File or folder to copy to; NAME.yaml if left out."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy a shipped recipe, to make it yours."""
    with speaking(as_json=as_json, quiet=quiet) as output:
        place = copy(name, path)
        if as_json:
            output.document({"name": name, "path": str(place)})
        else:
            output.note(f"copied {name} to {place}; next: manyhead check {place}")


def shipped() -> list[dict[str, Any]]:
    """The shipped recipes, as ``ls --json`` lists them."""
    from manyhead.recipe.shipped import shipped_recipes

    return [
        {"name": found.name, "study": found.study, "title": found.title, "published": dict(found.published)}
        for found in shipped_recipes()
    ]


def copy(name: str, path: Path | None) -> Path:
    """Copies a shipped recipe and says where to. Raises `UsageError` where a file is in the way."""
    from manyhead.recipe.shipped import shipped_text

    text = shipped_text(name)
    own = f"{name.rpartition('/')[2]}.yaml"
    place = Path(own) if path is None else path / own if path.is_dir() else path
    write_new(place, text)
    return place


def check_new(path: Path) -> None:
    """Raises `UsageError` where there is something at ``path``."""
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists already; expected a new file; choose another name or remove it")


def write_new(path: Path, text: str) -> None:
    """Writes a file that must not exist yet."""
    from manyhead.files import write_text, writing

    check_new(path)
    with writing(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
