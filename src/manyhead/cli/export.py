"""``manyhead export``: a model in the form that another tool loads, compared with the model itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyhead.cli.options import Json, Plugins, Quiet, RunOrModel, listed
from manyhead.cli.output import Output, speaking
from manyhead.cli.stored import Stored, find_model
from manyhead.errors import UsageError
from manyhead.export import FORMATS

if TYPE_CHECKING:
    from manyhead.export.export import Exported

EXAMPLES = (
    "manyhead export runs/cs224n --to transformers",
    "manyhead export runs/cs224n --to transformers --task sst --out sst-model",
    "manyhead export runs/cs224n --to onnx",
    "manyhead export runs/cs224n --to onnx-int8 --json",
)


def export(
    model: RunOrModel,
    *,
    form: Annotated[
        str, typer.Option("--to", metavar="FORMAT", show_default=False, help=f"One of {', '.join(FORMATS)}.")
    ],
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="T", help="A task to export; all that can be if left out. Can be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The new folder; exports/NAME/FORMAT if left out.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Read the export back without manyhead, and compare it.")
    ] = True,
    rows: Annotated[
        int, typer.Option("--check-rows", metavar="N", min=0, help="Most dev rows that are compared; 0: all.")
    ] = 100,
    plugins: Plugins = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a model as another tool loads it.

    The export is read back in a process that has no manyhead and compared with the model, on the dev rows that the run
    scored and on a few texts that come with the package. Where they differ it is not kept (exit 4).
    """
    with speaking(as_json=as_json, quiet=quiet) as output:
        if form not in FORMATS:
            raise UsageError(f"--to: no format '{form}'; expected one of {', '.join(FORMATS)}")
        stored = find_model(model, plugins=listed(plugins))
        for task in tasks or ():
            stored.task(task)
        exported = export_stored(stored, form, tasks=tasks, out=out, check=check, rows=rows or None)
        _tell(exported, output, checked=check)


def export_stored(
    stored: Stored,
    form: str,
    *,
    tasks: list[str] | None = None,
    out: Path | None = None,
    check: bool = True,
    rows: int | None = None,
) -> "Exported":
    """Exports to ``out``, or below exports/; ``rows`` are the most dev rows that are compared."""
    from manyhead.export.export import export_model
    from manyhead.export.source import Source
    from manyhead.export.texts import reference_texts
    from manyhead.inference.predictor import Model

    folder = out or Path("exports") / stored.recipe.name / form
    names = tuple(dict.fromkeys(tasks or stored.recipe.tasks))
    texts = {name: reference_texts(stored.folder, stored.recipe, name, rows) for name in names}
    loaded = Model.load(
        stored.folder, device="cpu", precision="fp32", threads=stored.recipe.threads, plugins=stored.plugins
    )
    return export_model(Source(loaded, stored.folder, names, texts, named=bool(tasks)), form, folder, check=check)


def _tell(exported: "Exported", output: Output, *, checked: bool) -> None:
    for task, reason in exported.export.left_out.items():
        output.note(f"{task}: left out: {reason}")
    output.note(*exported.export.notes)
    output.error(*exported.warnings)
    if output.as_json:
        output.document(exported.as_dict())
        return
    output.show(*(each.line() for each in exported.parity), str(exported.folder))
    if not checked:
        output.note("not compared with the model (--no-check)")
