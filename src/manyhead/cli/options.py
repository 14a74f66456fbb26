"""Options that several verbs share, and what a list of examples looks like below a verb's help."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.")]
RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", show_default=False, help="A recipe file, or the name of a shipped recipe.")
]
RunOrModel = Annotated[
    str,
    typer.Argument(
        metavar="RUN_OR_MODEL", show_default=False, help="A run folder, a model folder, or the hub id of a model."
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="RUN", help="Folder of the run; runs/NAME where it is left out.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run where it was stopped.")]
AllowChange = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-change",
        metavar="WHAT",
        help="Go on though it changed since the run began: recipe, data, labels, encoder or teachers. Can be repeated.",
    ),
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="D", help="Folder of the data, in place of the recipe's data_dir.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the recipe: stages.0.epochs=1. Can be repeated."),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "int8"] | None,
    typer.Option(
        "--precision",
        show_default=False,
        help="Of the encoder's products, in place of the recipe's precision; int8 is for CPUs, fast and less exact.",
    ),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="MODULE", help="Allow a Python module that the model needs. Can be repeated."),
]


def examples(*lines: str) -> str:
    r"""The end of a verb's help; ``\b`` keeps the lines as they are."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def listed(values: Sequence[str] | None) -> list[str]:
    """The values of an option that can be repeated."""
    return list(values or ())
