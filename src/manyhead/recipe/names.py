"""The recipes that ship with the package, by name: their paths below ``recipes/`` less the ending."""

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "recipes"


def shipped_paths() -> dict[str, Path]:
    """Name (``cs224n``, ``s1/base``) to file, in the order of names."""
    paths = {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in FOLDER.rglob("*.yaml")}
    return dict(sorted(paths.items()))
