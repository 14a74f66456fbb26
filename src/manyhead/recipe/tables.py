"""All families' tables in one place, with the members of the user's plugins added."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from manyhead.balancing import BALANCING
from manyhead.encoder import EXPERTS, POOLING, PROJECTIONS
from manyhead.errors import Problem, RecipeError
from manyhead.heads import HEADS
from manyhead.objectives import OBJECTIVES
from manyhead.optimizers import OPTIMIZERS
from manyhead.pretraining import PRETRAINING
from manyhead.rates import RATES
from manyhead.recipe.schema import Entry, Options, Tables
from manyhead.regularisers import REGULARISERS
from manyhead.schedules import SCHEDULES
from manyhead.trackers import TRACKERS

TABLES: dict[str, Mapping[str, Entry]] = {
    "pooling": POOLING,
    "projections": PROJECTIONS,
    "experts": EXPERTS,
    "heads": HEADS,
    "objectives": OBJECTIVES,
    "pretraining": PRETRAINING,
    "regularisers": REGULARISERS,
    "balancing": BALANCING,
    "schedules": SCHEDULES,
    "optimizers": OPTIMIZERS,
    "rates": RATES,
    "trackers": TRACKERS,
}


def tables_with(plugins: Sequence[str]) -> Tables:
    """The tables plus each plugin's ``MEMBERS``: family to (name to `Entry`).

    Raises `RecipeError` for a plugin that cannot be imported, has no MEMBERS, or takes a name that exists.
    """
    merged: dict[str, dict[str, Entry]] = {family: dict(members) for family, members in TABLES.items()}
    problems: list[Problem] = []
    for name in plugins:
        try:
            members = _members(importlib.import_module(name).MEMBERS)
        except Exception as error:  # a plugin is the user's own code and may fail in any way
            do = "install the module or put its folder on PYTHONPATH, and define MEMBERS in it"
            problems.append(Problem(f"cannot use plugin '{name}': {error}", key="plugins", do=do))
            continue
        for family, entries in members.items():
            if family not in merged:
                expected = f"one of {', '.join(merged)}"
                problems.append(Problem(f"plugin '{name}' adds to '{family}'", key="plugins", expected=expected))
                continue
            for kind, entry in entries.items():
                if merged[family].get(kind, entry) != entry:
                    do = "give it another name"
                    problems.append(Problem(f"plugin '{name}': {family} has '{kind}' already", key="plugins", do=do))
                merged[family][kind] = entry
    if problems:
        raise RecipeError(problems)
    return merged


def _members(given: object) -> Mapping[str, Mapping[str, Entry]]:
    families = cast("Mapping[str, object]", given if isinstance(given, Mapping) else {"": None})
    for entries in families.values():
        rows = cast("Mapping[str, object]", entries if isinstance(entries, Mapping) else {"": None})
        if not all(isinstance(entry, Entry) for entry in rows.values()):
            raise TypeError("MEMBERS maps a family to a mapping of name to Entry")
    return cast("Mapping[str, Mapping[str, Entry]]", families)


def builder(tables: Tables, family: str, options: Options) -> Callable[..., Any]:
    """The function that builds the member ``options`` describes; imports its module."""
    module, function = tables[family][options.kind].builder.split(":")
    return cast("Callable[..., Any]", getattr(importlib.import_module(module), function))
