"""``manyhead recipes``: the recipes that ship with the package."""

import itertools
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyhead.cli.options import Json, Quiet, examples
from manyhead.cli.output import speaking, table
from manyhead.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from transformers import PretrainedConfig

BERT_BASE = "bert-base"
"""Stands for bert-base's configuration, which needs no files."""

app = typer.Typer(
    name="recipes",
    help="List, show and copy the recipes that ship with the package.",
    epilog=examples("manyhead recipes ls", "manyhead recipes cp cs224n my.yaml"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="Name of a shipped recipe.")]


@app.command("ls", epilog=examples("manyhead recipes ls", "manyhead recipes ls s1", "manyhead recipes ls --json"))
def list_recipes(
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", show_default=False, help="Only names with this in them.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the shipped recipes."""
    with speaking(as_json=as_json, quiet=quiet) as output:
        found = [entry for entry in shipped() if pattern is None or fnmatchcase(entry["name"], f"*{pattern}*")]
        if not found:
            raise UsageError(f"no shipped recipe has '{pattern}' in its name; see all by: manyhead recipes ls")
        if as_json:
            output.document({"recipes": found})
        else:
            output.show(*listing(found))
            output.note("", "manyhead recipes show NAME prints one, cp NAME copies it")


def listing(found: "Sequence[dict[str, Any]]") -> "list[RenderableType]":
    """A table for each folder of recipes, those without one first."""

    def folder(entry: dict[str, Any]) -> str:
        return entry["name"].rpartition("/")[0]

    parts: list[RenderableType] = []
    for name, entries in itertools.groupby(sorted(found, key=folder), folder):
        rows = [(entry["name"], entry["title"]) for entry in entries]
        parts += [*([""] if parts else []), table((f"{name}/" if name else "recipe", "title"), rows, left=2)]
    return parts


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


@app.command(
    epilog=examples("manyhead recipes parameters s3/low-rank", "manyhead recipes parameters my.yaml --encoder embedded")
)
def parameters(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", show_default=False, help="Recipes; all that ship, where left out."),
    ] = None,
    encoder: Annotated[
        str, typer.Option("--encoder", metavar="CHECKPOINT", help="Whose sizes count, in place of the recipes' own.")
    ] = BERT_BASE,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count the parameters of recipes' models, beside the published numbers.

    Nothing is loaded for bert-base; other checkpoints are looked for as encoder.checkpoint is.
    """
    with speaking(as_json=as_json, quiet=quiet) as output:
        found = count_parameters(names or [entry["name"] for entry in shipped()], encoder)
        if as_json:
            output.document({"encoder": encoder, "recipes": found})
        else:
            columns = ("recipe", "total", "trained", "shared", "published", "of one task alone")
            output.show(table(columns, [_counted(entry) for entry in found]))
            output.note("", f"millions of parameters, with the sizes of {encoder}")


def count_parameters(names: "Sequence[str]", encoder: str) -> list[dict[str, Any]]:
    """Each recipe's numbers, as ``parameters --json`` prints them."""
    from manyhead.build.trainable import stage_parameters
    from manyhead.recipe.load import load_recipe
    from manyhead.recipe.shipped import shipped_recipes

    config = _configuration(encoder)
    published = {entry.name: entry.published_parameters for entry in shipped_recipes()}
    found: list[dict[str, Any]] = []
    for name in names:
        loaded = load_recipe(name)
        counts = stage_parameters(loaded.recipe, loaded.tables, config)
        found.append({"name": name, **counts, "published": published.get(name)})
    return found


def _configuration(encoder: str) -> "PretrainedConfig":
    from transformers import BertConfig

    from manyhead.encoder.load import read_config
    from manyhead.encoder.source import locate_encoder
    from manyhead.inference.model_folder import ENCODER, model_in

    if encoder == BERT_BASE:
        return BertConfig()
    source = locate_encoder(encoder, None)
    folder = model_in(source.folder) / ENCODER if source.kind == "manyhead" else source.folder
    return read_config(folder, dropout=0.0, attention_dropout=None)


def _counted(entry: dict[str, Any]) -> tuple[str, ...]:
    numbers = (_millions(entry[key]) for key in ("total", "trained", "shared", "published"))
    own = ", ".join(f"{task} {_millions(count)}" for task, count in entry["per_task"].items())
    return (entry["name"], *numbers, own)


def _millions(count: float | None) -> str:
    return "" if count is None else f"{count / 1e6:.3f}"


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
