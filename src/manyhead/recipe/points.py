"""The recipes that a recipe's ``grid`` and ``search`` stand for: each of them has to be valid too."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from manyhead.recipe.faults import Fault, shown
from manyhead.recipe.keys import Keys, join_key, split_key
from manyhead.recipe.overrides import Tree
from manyhead.recipe.schema import Recipe, SearchRange

MOST_POINTS = 1000
"""Combinations of a grid that are accepted."""

_OF_THE_WHOLE = ("manyhead", "name", "plugins", "grid", "search")
_Judge = Callable[[dict[str, Any]], list[Fault]]
_Choices = list[tuple[Keys, object]]
"""Values of a key, each with the key of the recipe that it is written at."""


def grid_points(recipe: Recipe) -> list[dict[str, Any]]:
    """Every combination of the grid's values, by dotted key; the last key changes fastest. One empty one without it."""
    return [dict(zip(recipe.grid, values, strict=True)) for values in itertools.product(*recipe.grid.values())]


def point_faults(recipe: Recipe, written: Mapping[str, Any], judge: _Judge) -> Iterator[Fault]:
    """Yield what is wrong with the grid and the search of a recipe in which nothing else is.

    ``written`` are the recipe's values, and ``judge`` says what is wrong with such values.
    """
    if recipe.grid and recipe.search is not None:
        yield Fault(("search",), "there is a grid too", do="remove one of the two", reads=(("grid",),))
    base = {key: value for key, value in written.items() if key not in ("grid", "search")}
    if recipe.grid:
        places = {key: ("grid", key) for key in recipe.grid}
        choices = {key: _listed(places[key], values) for key, values in recipe.grid.items()}
        faults = [*_key_faults(places), *_empty(choices, places)]
        size = math.prod(map(len, choices.values()))
        if size > MOST_POINTS:
            faults.append(Fault(("grid",), f"has {size} combinations", f"at most {MOST_POINTS}", "remove some values"))
        combined = (dict(zip(choices, point, strict=True)) for point in itertools.product(*choices.values()))
        yield from faults or _judged(base, combined, judge)
    if recipe.search is not None:
        yield from _search_faults(recipe.search.keys, base, judge)


def _search_faults(keys: Mapping[str, SearchRange | list[Any]], base: dict[str, Any], judge: _Judge) -> Iterator[Fault]:
    """A search's values are tried one by one, each beside the first ones of the other keys."""
    places = {key: ("search", "keys", key) for key in keys}
    faults = list(_key_faults(places))
    choices: dict[str, _Choices] = {}
    for key, given in keys.items():
        if isinstance(given, SearchRange):
            faults += _range_faults(places[key], given)
            ends = {"low": given.low, "high": given.high}
            choices[key] = [((*places[key], end), int(at) if given.integer else at) for end, at in ends.items()]
        else:
            choices[key] = _listed(places[key], given)
    faults += _empty(choices, places)
    first = {key: listed[0] for key, listed in choices.items() if listed}
    tried = ({**first, key: choice} for key, listed in choices.items() for choice in listed)
    for fault in faults or _judged(base, tried, judge):
        is_range = fault.keys[-1] in ("low", "high") and fault.do is not None
        yield replace(fault, do="set integer: true") if is_range else fault


def _judged(base: dict[str, Any], points: Iterator[dict[str, tuple[Keys, object]]], judge: _Judge) -> Iterator[Fault]:
    """Faults of the recipes at ``points``, each told once: of the value it lies in, else of the first combination."""
    told: set[tuple[Keys, str]] = set()
    for point in points:
        tree = Tree(base, {})
        unset = [
            Fault(at[:-1], fault.problem, fault.expected, fault.do)
            for key, (at, value) in point.items()
            if (fault := tree.set(split_key(key), value, {}))
        ]
        for fault in unset or judge(tree.value):
            if (fault.keys, fault.problem) not in told:
                told.add((fault.keys, fault.problem))
                yield fault if unset else _placed(fault, point)


def _placed(fault: Fault, point: Mapping[str, tuple[Keys, object]]) -> Fault:
    """The fault of a recipe at the value of its point that it belongs to, else at the whole grid or search."""
    for key, (at, _) in point.items():
        keys = split_key(key)
        if _matches(keys, fault.keys):
            below = fault.keys[len(keys) :]
            problem = f"{join_key(below)}: {fault.problem}" if below else fault.problem
            return Fault(at, problem, fault.expected, fault.do)
    settings = " and ".join(f"{key}={shown(value)}" for key, (_, value) in point.items())
    whole = next(iter(point.values()))[0][:-2]
    return Fault(whole, f"with {settings}: {join_key(fault.keys)}: {fault.problem}", fault.expected, fault.do)


def _matches(keys: Keys, fault: Keys) -> bool:
    """Whether a fault lies at a key that was set, or below it."""
    return len(fault) >= len(keys) and all(own in ("*", other) for own, other in zip(keys, fault, strict=False))


def _key_faults(places: Mapping[str, Keys]) -> Iterator[Fault]:
    for key, place in places.items():
        try:
            keys = split_key(key)
        except ValueError as error:
            yield Fault(place, str(error), "a dotted key, such as stages.0.epochs")
            continue
        if keys[0] in _OF_THE_WHOLE:
            yield Fault(place, f"'{keys[0]}' is of all recipes of the study", "a key that one run may have of its own")


def _empty(choices: Mapping[str, _Choices], places: Mapping[str, Keys]) -> Iterator[Fault]:
    for key, listed in choices.items():
        if not listed:
            yield Fault(places[key], "is empty", "one or more values", "add the values to try, or remove the key")


def _range_faults(place: Keys, given: SearchRange) -> Iterator[Fault]:
    if given.low >= given.high:
        yield Fault(place, f"the lowest, {given.low:g}, is not below the highest, {given.high:g}")
    if given.log and given.low <= 0:
        yield Fault((*place, "low"), f"cannot be {given.low:g} on a logarithmic scale", "a number > 0")
    for end in ("low", "high"):
        at = float(getattr(given, end))
        if given.integer and not at.is_integer():
            yield Fault((*place, end), f"cannot be {at:g} where whole numbers are drawn", "a whole number")


def _listed(place: Keys, values: list[Any]) -> _Choices:
    return [((*place, str(number)), value) for number, value in enumerate(values)]
