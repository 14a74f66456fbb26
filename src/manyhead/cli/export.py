"""``manyhead export``: a model in the form that another tool loads, compared with the model itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyhead.cli.options import Json, Plugins, Quiet, RunOrModel, listed
from manyhead.cli.output import speaking
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
    "manyhead export runs/siamese --to sentence-transformers",
    "manyhead export runs/cs224n --to hub --license apache-2.0 --push OWNER/NAME",
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
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="D", help="Compare the dev rows of the files in D, not those the run kept."),
    ] = None,
    push: Annotated[
        str | None, typer.Option("--push", metavar="OWNER/NAME", help="hub: push the folder there, in one commit.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="hub: what --push makes is private.")] = False,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="hub: the model's licence, such as apache-2.0.")
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option("--language", metavar="CODE", help="hub: a language of its texts, such as en.")
    ] = None,
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
        _check_hub_options(form, push, private=private, licence=licence, language=language)
        stored = find_model(model, plugins=listed(plugins), data_dir=data_dir)
        for task in tasks or ():
            stored.task(task)
        card = {"license": licence, "language": language}
        exported = export_stored(
            stored,
            form,
            tasks=tasks,
            out=out,
            check=check,
            rows=rows or None,
            read_data=data_dir is not None,
            card=card,
        )
        for task, reason in exported.export.left_out.items():
            output.note(f"{task}: left out: {reason}")
        output.note(*exported.export.notes)
        output.error(*exported.warnings)
        if not check:
            output.note("not compared with the model (--no-check)")
        pushed = None if push is None else _push(exported.folder, push, private=private)
        if as_json:
            output.document({**exported.as_dict(), "pushed": pushed})
        else:
            output.show(*(each.line() for each in exported.parity), str(exported.folder))
            output.show(*([] if pushed is None else [f"{pushed['url']} (commit {pushed['commit']})"]))


def export_stored(
    stored: Stored,
    form: str,
    *,
    tasks: list[str] | None = None,
    out: Path | None = None,
    check: bool = True,
    rows: int | None = None,
    read_data: bool = False,
    card: Mapping[str, Any] | None = None,
) -> "Exported":
    """Exports to ``out``, or below exports/.

    ``rows`` are the most dev rows of a task that are compared: those that the run kept, or, with ``read_data``, those
    of the recipe's files. ``card`` is what the model card cannot know: license and language.
    """
    from manyhead.export.export import export_model
    from manyhead.export.source import Source
    from manyhead.export.texts import reference_texts
    from manyhead.inference.predictor import Model

    folder = out or Path("exports") / stored.recipe.name / form
    names = tuple(dict.fromkeys(tasks or stored.recipe.tasks))
    texts = {
        name: reference_texts(stored.folder, stored.recipe, name, rows if check else 0, read_data=read_data)
        for name in names
    }
    loaded = Model.load(
        stored.folder, device="cpu", precision="fp32", threads=stored.recipe.threads, plugins=stored.plugins
    )
    source = Source(loaded, stored.folder, names, texts, named=bool(tasks), options=card or {})
    return export_model(source, form, folder, check=check)


def _check_hub_options(
    form: str, push: str | None, *, private: bool, licence: str | None, language: list[str] | None
) -> None:
    given = {"--push": push, "--private": private, "--license": licence, "--language": language}
    if form != "hub" and (odd := [name for name, value in given.items() if value]):
        raise UsageError(f"{', '.join(odd)}: only with --to hub; leave it out, or export with --to hub")
    if private and push is None:
        raise UsageError("--private: says how --push makes a repository; expected --push OWNER/NAME with it")
    if push is not None:
        from manyhead.export.push import check_name

        check_name(push)


def _push(folder: Path, repo: str, *, private: bool) -> dict[str, str]:
    from manyhead.export.push import push

    done = push(folder, repo, private=private)
    return {"repo": repo, "url": done.url, "commit": done.commit}
