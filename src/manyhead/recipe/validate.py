"""Validating a recipe's values: the recipe, and every fault of it at once.

Keys at fault are taken out or stood in for, so that the rest can be judged as a whole recipe: a typing error in one
task hides no mistake in another.
"""

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

from pydantic import ValidationError

from manyhead.recipe.checks import check
from manyhead.recipe.explain import Details, explain
from manyhead.recipe.faults import Fault
from manyhead.recipe.keys import Keys, below, value_at
from manyhead.recipe.points import point_faults
from manyhead.recipe.schema import FORMAT, Recipe, Tables

_ROUNDS = 8
"""Rounds of mending; each goes one level further up from a key at fault."""

_TASK: dict[str, Any] = {"kind": "classification", "text": ["text"], "target": "target", "files": {}}
_STAND_INS: dict[Keys, Any] = {
    ("manyhead",): FORMAT,
    ("name",): "recipe",
    ("tasks",): {"task": _TASK},
    ("tasks", "*"): _TASK,
    **{("tasks", "*", key): value for key, value in _TASK.items()},
    ("stages", "*"): {},
}
"""Valid values of the keys that have no default."""


def validated(value: dict[str, Any], tables: Tables) -> tuple[Recipe | None, list[Fault]]:
    """The recipe of ``value``, and every fault of single keys, between keys and at the points of its grid.

    With faults, the recipe is no use.
    """
    faults: list[Fault] = []
    spoiled: set[Keys] = set()
    sound = copy.deepcopy(value)
    for _ in range(_ROUNDS):
        try:
            recipe = Recipe.model_validate(sound, context={"tables": tables})
        except ValidationError as error:
            found = explain(cast("list[Details]", error.errors()), sound, tables)
        else:
            faults += [_as_written(fault, value) for fault in check(recipe) if not _rests_on(fault, spoiled)]
            points = () if faults else point_faults(recipe, value, lambda point: validated(point, tables)[1])
            return recipe, [*faults, *points]
        faults += [fault for fault in found if not _touches(fault.keys, spoiled)]
        for fault in found:
            _mend(sound, fault.keys, again=fault.keys in spoiled)
        spoiled.update(key for fault in found for key in (fault.keys, *fault.reads))
    return None, faults


def _as_written(fault: Fault, value: dict[str, Any]) -> Fault:
    """The fault of a member's kind at the member itself, where that is written as a bare name."""
    *member, last = fault.keys
    found = value_at(tuple(member), value)
    return replace(fault, keys=tuple(member)) if last == "kind" and isinstance(found, str) else fault


def _rests_on(fault: Fault, spoiled: Iterable[Keys]) -> bool:
    return any(_touches(keys, spoiled) for keys in (fault.keys, *fault.reads))


def _touches(keys: Keys, spoiled: Iterable[Keys]) -> bool:
    """Whether a key is one that is known to be wrong, or lies above or below one."""
    return any(keys[: len(bad)] == bad or bad[: len(keys)] == keys for bad in spoiled)


def _mend(value: dict[str, Any], keys: Keys, again: bool = False) -> None:
    """Put something valid in the place of a key, or take out the nearest key above it that can be missing.

    Does nothing where what holds the key is gone already. ``again``: what was put there was refused too, so the key
    itself has to go.
    """
    *above, last = keys
    parent: Any = value
    for key in above:
        found = below(parent, key)
        if found is None:
            return
        parent = found[1]
    own = below(parent, last)
    stand_in = None if again else _STAND_INS.get((keys[0], "*", *keys[2:]) if above else keys)
    if stand_in is not None and (own or isinstance(parent, dict)):
        parent[own[0] if own else last] = copy.deepcopy(stand_in)
    elif own and not isinstance(parent, list):
        del parent[own[0]]
    elif above:
        _mend(value, tuple(above))
