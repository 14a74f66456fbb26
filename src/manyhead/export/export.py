"""Exporting: a format writes, what it wrote is read back and compared, and only then has the folder its name."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from manyhead.encoder.load import quiet_transformers
from manyhead.errors import CheckpointError, UsageError
from manyhead.export import FORMATS
from manyhead.export.check import Parity, compare, failures
from manyhead.export.source import Export, Source
from manyhead.faults import at
from manyhead.files import new_folder, writing


@dataclass(frozen=True)
class Exported:
    """An export that is there. ``parity`` is empty where nothing was compared; ``warnings`` are of what was found."""

    folder: Path
    format: str
    export: Export
    parity: tuple[Parity, ...]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "format": self.format,
            "folder": str(self.folder),
            "exports": [{"name": each.name, "folder": str(self.folder / each.folder)} for each in self.export.written],
            "left_out": dict(self.export.left_out),
            "parity": [each.as_dict() for each in self.parity],
            "warnings": list(self.warnings),
        }


def export_model(source: Source, form: str, folder: Path, *, check: bool = True) -> Exported:
    """Writes the export ``form`` of ``source`` into the new ``folder``, and compares it with the model.

    Raises `UsageError` where the folder is there already or the format has no counterpart of a part of the model,
    `CheckpointError`, leaving no folder, where the export says something else than the model.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists; expected a new folder; choose another --out, or remove it")
    with writing(str(folder)), new_folder(folder) as temporary:
        with quiet_transformers():
            export = writer(form)(source, temporary)
        at("export: written", temporary)
        parity = tuple(compare(temporary, export.written)) if check else ()
        if off := failures(parity):
            raise CheckpointError(
                "\n".join([f"{form}: the export does not say what the model says; nothing was kept", *off])
            )
        warnings = tuple(export.finish(temporary, parity)) if export.finish is not None and check else ()
    return Exported(folder, form, export, parity, warnings)


def writer(form: str) -> Callable[[Source, Path], Export]:
    """The function that writes the format ``form``; imports its module. Raises `UsageError` for an unknown one."""
    if form not in FORMATS:
        raise UsageError(f"no format '{form}'; expected one of {', '.join(FORMATS)}")
    module, function = FORMATS[form].split(":")
    return cast("Callable[[Source, Path], Export]", getattr(importlib.import_module(module), function))
