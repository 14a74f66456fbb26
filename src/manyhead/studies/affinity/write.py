"""The whole answer of the verb as a document, and what is written of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from manyhead.files import write_json, writing
from manyhead.recipe.load import LoadedRecipe
from manyhead.studies.affinity.affinity import Affinity, task_affinity
from manyhead.studies.affinity.check import check_prediction
from manyhead.studies.affinity.gains import measure_gains
from manyhead.studies.affinity.gradients import Sizes

DOCUMENT = "affinity.json"


def affinity_document(
    loaded: LoadedRecipe,
    sizes: Sizes,
    *,
    measured: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Affinity, dict[str, Any]]:
    """The affinity of a recipe's tasks, and as a document; with ``measured``, a study's folder, beside gains.

    Raises as `task_affinity`, `measure_gains` and `check_prediction` do.
    """
    gains = None if measured is None else measure_gains(measured, loaded.recipe.plugins)
    found = task_affinity(loaded, sizes, tell=tell)
    document = found.as_dict()
    if gains is not None:
        document["measured"] = check_prediction(found, gains).as_dict()
    return found, document


def write_affinity(found: Affinity, document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes affinity.json and the heat maps into ``folder``: their paths. Raises `WriteError`."""
    from manyhead.studies.affinity.figure import write_figures

    path = folder / DOCUMENT
    with writing(str(path)):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, document)
    return [path, *write_figures(found, folder)]
