"""``manyhead init``: a first recipe for a user's files."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyhead.cli.options import Json, Quiet
from manyhead.cli.output import speaking
from manyhead.cli.recipes import check_new, write_new

if TYPE_CHECKING:
    from manyhead.data.beginning import Beginning

EXAMPLES = (
    "manyhead init train.csv dev.csv",
    "manyhead init sst-train.tsv sst-dev.tsv nli.jsonl --out mine.yaml",
    "manyhead init reviews.csv --checkpoint ./my-classifier --out mine.yaml",
)


_TOKENS = 128
_FEWEST = 6  # what a recipe's max_tokens can be, beside the positions that some encoders keep for padding


@dataclass(frozen=True)
class Guess:
    """A guessed recipe that loads, and its tasks in a few words each."""

    text: str
    tasks: dict[str, str]


def init(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", show_default=False, help="Your tables, of one task or several.")
    ],
    *,
    out: Annotated[Path | None, typer.Option("--out", metavar="R", help="Write the recipe to this file.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="N", help="Name of the recipe.")] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", metavar="C", help="Begin with this folder, run, model or hub id, and its head."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print a recipe for your files, every guess with its reason."""
    with speaking(as_json=as_json, quiet=quiet) as output:
        if out is not None:
            check_new(out)
        guess = guess_checked(files, name, None if checkpoint is None else beginning_of(checkpoint))
        if out is not None:
            write_new(out, guess.text)
        if as_json:
            output.document({"recipe": guess.text, "tasks": list(guess.tasks)})
        elif out is None:
            output.show(guess.text.rstrip("\n"))
        output.note(*(f"{task}: {what}" for task, what in guess.tasks.items()))
        output.note(f"next: look at the guesses, then: manyhead check {out or 'RECIPE'}")


def guess_checked(files: list[Path], name: str | None, beginning: "Beginning | None" = None) -> Guess:
    """A recipe for ``files`` that has been loaded once. Raises `UsageError` and `DataError` for unusable files."""
    from manyhead.data.guess import guess_recipe
    from manyhead.recipe.load import load_recipe

    text = guess_recipe(files, name=name, beginning=beginning)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "guessed.yaml"
        path.write_text(text, encoding="utf-8")
        recipe = load_recipe(path).recipe
    described = {
        task: f"{options.kind} of {' and '.join(options.text)}, target {options.target}"
        for task, options in recipe.tasks.items()
    }
    return Guess(text, described)


def beginning_of(checkpoint: str) -> "Beginning":
    """Pooling, length and head that fit a checkpoint. Raises `UsageError` where it cannot be used."""
    from manyhead.data.beginning import Beginning
    from manyhead.data.guess import scalar
    from manyhead.encoder.classifier import head_text, read_classifier
    from manyhead.encoder.foreign import load_config_dict
    from manyhead.encoder.source import locate_encoder
    from manyhead.inference.model_folder import RECIPE, model_in
    from manyhead.recipe.stored import load_stored_recipe

    source = locate_encoder(checkpoint, None)
    folder = scalar(str(Path(checkpoint).expanduser().resolve()) if Path(checkpoint).is_dir() else checkpoint)
    if source.kind == "manyhead":
        known = load_stored_recipe(model_in(source.folder) / RECIPE).recipe.encoder
        values = f"checkpoint: {folder}, pooling: {known.pooling.kind}, max_tokens: {known.max_tokens}"
        return Beginning(f"{{{values}}}  # as the model has it")
    positions = load_config_dict(source.folder).get("max_position_embeddings")
    tokens = min(_TOKENS, positions - 2) if isinstance(positions, int) and positions > _FEWEST else _TOKENS
    found, sentence = read_classifier(source.folder), source.sentence
    pooling, why = "mean", "longer texts are cut"
    if found is not None and found.layout is not None and not found.several:
        pooling, why = found.layout.pooling, f"as {found.architecture} has it"
    elif sentence is not None and sentence.pooling is not None:
        pooling, why = sentence.pooling, "pooling as the sentence-transformers model has it"
    encoder = f"{{checkpoint: {folder}, pooling: {pooling}, max_tokens: {tokens}}}  # {why}"
    if found is None or found.layout is None or found.several:
        return Beginning(encoder)
    labels = found.labels if found.named and found.outputs > 1 else ()
    return Beginning(encoder, head_text(found.layout, found.width), found.outputs, labels)
