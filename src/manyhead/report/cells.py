"""Values out of files that may hold anything."""

from collections.abc import Mapping
from typing import Any

MAX_NUMBER = 1e99
"""Numbers beyond it, either way, are taken for what no run measures, as are infinities."""


def mapping(value: object) -> Mapping[str, Any]:
    """``value`` with its keys as text if it is a mapping, else nothing."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def number(value: object) -> float | None:
    """``value`` if it is a number that can be drawn and printed, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER:
        return None
    return value


def parsed(cell: str) -> float | None:
    """The number that a cell of a table says, None where it says none."""
    try:
        return number(float(cell))
    except ValueError:
        return None
