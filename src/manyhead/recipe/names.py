"""The recipes and studies that ship with the package, by name: their paths below ``recipes/`` less the ending."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "recipes"
STUDIES = FOLDER / "studies"


@cache
def shipped_paths() -> Mapping[str, Path]:
    """Name (``cs224n``, ``s1/base``) to file, in the order of names."""
    paths = {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in FOLDER.rglob("*.yaml")}
    return {name: path for name, path in sorted(paths.items()) if STUDIES not in path.parents}


def shipped_studies() -> dict[str, Path]:
    """Name (``s1``) to file, in the order of names."""
    return {path.stem: path for path in sorted(STUDIES.glob("*.yaml"))}
