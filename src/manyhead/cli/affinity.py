"""``manyhead affinity``: which tasks to train together, asked before training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyhead.cli.options import DataDir, Json, Overrides, Quiet, RecipeName, listed
from manyhead.cli.output import speaking, table

if TYPE_CHECKING:
    from rich.console import RenderableType

EXAMPLES = (
    "manyhead affinity cs224n-cpu --data-dir data/cs224n",
    "manyhead affinity my-recipe.yaml --examples 1024 --out affinity",
    "manyhead affinity my-recipe.yaml --json | jq .suggestion",
    "",
    "Was it right? Train every subset of the tasks, then compare:",
    "  manyhead study subsets --data-dir data --out runs/subsets",
    "  manyhead affinity affinity/subsets --data-dir data --measured runs/subsets",
)


def affinity(
    recipe: RecipeName,
    *,
    examples: Annotated[
        int, typer.Option("--examples", metavar="N", min=1, help="Training examples of each task that are measured.")
    ] = 256,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Examples of a mini-batch.")] = 8,
    warmup_steps: Annotated[
        int,
        typer.Option(
            "--warmup-steps",
            metavar="N",
            min=0,
            help="Steps that train the new heads, on other examples and under a frozen encoder, before anything is "
            "measured.",
        ),
    ] = 48,
    measured: Annotated[
        Path | None,
        typer.Option(
            "--measured",
            metavar="STUDY",
            help="Folder of a study that trained subsets of the tasks: compare what is predicted with what they "
            "gained.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write affinity.json and a heat map there.")
    ] = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask before training which tasks to train together.

    Compares the tasks' gradients at the start: which agree, which conflict, how sure that is. Suggests groups of tasks,
    and constants of their losses. Nothing is trained but new heads, for a few steps.
    """
    from manyhead.recipe.load import load_recipe
    from manyhead.studies.affinity.gradients import Sizes

    with speaking(as_json=as_json, quiet=quiet) as output:
        loaded = load_recipe(recipe, overrides=listed(overrides), data_dir=data_dir)
        from manyhead.studies.affinity.write import affinity_document, write_affinity

        sizes = Sizes(examples, batch_size, warmup_steps)
        found, document = affinity_document(loaded, sizes, measured=measured, tell=output.note)
        paths = [] if out is None else write_affinity(found, document, out)
        if as_json:
            output.document(document)
        else:
            output.show(*shown(document))
        output.note(*(f"written: {path}" for path in paths))


def shown(document: dict[str, Any]) -> "list[RenderableType]":
    """The document as tables and sentences."""
    tasks = [
        (
            name,
            _number(about["loss"]),
            _number(about["step_norm"]),
            f"{_number(about['gradient_norm'])} {_span(about['gradient_norm_interval'])}",
            _number(about["noise_scale_examples"]),
            _percent(about["own_conflict_rate"]),
            _number(about["constant"]),
        )
        for name, about in document["tasks"].items()
    ]
    pairs = [
        (
            ", ".join(pair["tasks"]),
            _cosine(pair["cosine"]),
            _span(pair["interval"]),
            pair["direction"],
            _percent(pair["conflict_rate"]),
        )
        for pair in document["pairs"]
    ]
    layers = [
        (", ".join(pair["tasks"]), *(_cosine(layer["cosine"]) for layer in pair["layers"].values()))
        for pair in document["pairs"]
    ]
    suggestion = document["suggestion"]
    parts: list[RenderableType] = [
        table(
            ("task", "loss", "step norm", "gradient norm", "noise scale, examples", "own conflicts", "constant"), tasks
        ),
        "",
        table(("tasks", "cosine", f"{document['level']:.0%} interval", "gradients", "conflicts"), pairs),
        "",
        table(("cosine by layer", *document["layers"]), layers),
        "",
        *suggestion["text"],
    ]
    if "measured" in document:
        parts += ["", *_shown_check(document["measured"])]
    return parts


def _shown_check(check: dict[str, Any]) -> "list[RenderableType]":
    rows = [
        (
            case["task"],
            " + ".join(case["partners"]),
            _cosine(case["predicted"]),
            _span(case["predicted_interval"]),
            f"{case['gain']:+.3f}",
            _span(case["gain_interval"], 3),
            f"{case['alone']:.3f}",
            f"{case['together']:.3f}",
        )
        for case in check["cases"]
    ]
    columns = ("task", "trained with", "predicted", "interval", "gain", "interval", "alone", "together")
    return [table(columns, rows, left=2), "", *check["text"]]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _span(interval: list[float | None], digits: int = 2) -> str:
    low, high = ("-" if each is None else f"{each:.{digits}f}" for each in interval)
    return f"{low} to {high}"
