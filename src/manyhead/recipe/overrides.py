"""A recipe's values with the place each was written at, and setting single keys of it (``set:``, ``--set``).

A dotted key that is set has to be one the schema knows, written in the recipe or not; omitted parts on the way to it
begin with their defaults. A mapping or list that is set replaces the one before it whole. In a list, the number after
the last item appends. A segment ``*`` stands for every key or item that is there: ``tasks.*.head.dropout``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from pydantic.fields import FieldInfo

from manyhead.errors import RecipeError
from manyhead.recipe.faults import Fault, choice, shown
from manyhead.recipe.keys import Keys, below, join_key, key_text, value_at
from manyhead.recipe.schema import LOSS_AND_METRIC
from manyhead.recipe.shape import ROOT, Spot, arms, child, described, fields_of, key_spot, model_at, slot_of
from manyhead.recipe.yaml_text import parse_value


class Place(NamedTuple):
    """Where a key was written: a file and its line, or the option that set it."""

    path: Path | str | None
    line: int | None = None


@dataclass
class Tree:
    """The values of a recipe as written, and the place of each key."""

    value: dict[str, Any]
    places: dict[Keys, Place]

    def place(self, keys: Keys) -> Place:
        """Where ``keys`` was written, or the nearest key above it that was."""
        while keys and keys not in self.places:
            keys = keys[:-1]
        return self.places.get(keys, Place(None))

    def set(self, keys: Keys, value: object, places: Mapping[Keys, Place]) -> Fault | None:
        """Set one key. ``places`` is where the value's own keys were written, () the value itself.

        Returns what is wrong with the key, and then changes nothing.
        """
        changed: object = self.value
        named = _named(keys, self.value)
        try:
            for each in named:
                changed = _with(changed, ROOT, (), each, value)
        except _KeyFaultError as error:
            return error.fault
        self.value = cast("dict[str, Any]", changed)
        for each in named:
            self.places = {known: place for known, place in self.places.items() if known[: len(each)] != each}
            self.places |= {each + inner: place for inner, place in places.items()}
        return None


class _KeyFaultError(Exception):
    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault.problem)


def _named(keys: Keys, value: object) -> list[Keys]:
    """The keys that ``keys`` stands for: each ``*`` for every key or item that ``value`` has there."""
    for place, segment in enumerate(keys):
        here = value_at(keys[:place], value)
        if segment != "*" or below(here, "*") or not isinstance(here, Mapping | list):
            continue
        items = cast("Iterable[object]", here if isinstance(here, Mapping) else range(len(cast("list[object]", here))))
        found = [_named((*keys[:place], key_text(item), *keys[place + 1 :]), value) for item in items]
        return [each for several in found for each in several] or [keys]
    return [keys]


def _with(here: Any, spot: Spot | None, done: Keys, left: Keys, value: object) -> object:
    """A copy of ``here`` in which the key ``left`` has ``value``. ``spot`` is None inside options of unknown shape."""
    if not left:
        return value
    here = _opened(here, spot, done, left)
    own_key, current, inner = _step(here, spot, done, left)
    changed = _with(current, inner, (*done, left[0]), left[1:], value)
    if isinstance(here, list):
        items = list(cast("list[object]", here))
        return [*items[: int(own_key)], changed, *items[int(own_key) + 1 :]]
    return {**here, own_key: changed}


def _opened(here: Any, spot: Spot | None, done: Keys, left: Keys) -> Any:
    """``here`` as a mapping or list: a member's bare name becomes ``{kind: name}``, null an empty mapping."""
    if isinstance(here, Mapping | list):
        return cast("object", here)
    if spot is not None and slot_of(spot) and isinstance(here, str):
        return {"kind": here}
    if here is None and (spot is None or model_at(spot, {}) or key_spot(spot)):
        return {}
    do = f"set {join_key(done)} whole" + ("" if spot is None else f": {described(spot)}")
    problem = f"nothing stands below {join_key(done)}, which is {shown(here)}"
    raise _KeyFaultError(Fault((*done, *left), problem, do=do))


def _step(here: Any, spot: Spot | None, done: Keys, left: Keys) -> tuple[Any, object, Spot | None]:
    """The own key of ``left[0]`` in ``here``, the value there (or its default) and the spot of it."""
    name, last = left[0], len(left) == 1
    inner = None if spot is None else child(spot, here, name)
    found = below(here, name)
    model = None if spot is None else model_at(spot, here)
    if model is not None and inner is None:
        expected, do = choice(name, fields_of(model))
        raise _KeyFaultError(Fault((*done, *left), f"unknown key '{name}'", None if do else expected, do))
    if found is not None:
        return (*found, inner)
    if isinstance(here, list):
        size = len(cast("list[object]", here))
        if not (last and name == str(size)):
            expected = f"a number from 0 to {size - 1}" + (f", or {size} to append" if last else "")
            raise _KeyFaultError(Fault((*done, *left), f"{join_key(done)} has no item '{name}'", expected))
        return size, None, inner
    if model is None and spot is not None and not slot_of(spot) and not last:
        expected, do = choice(name, [key_text(key) for key in here])
        problem = f"{join_key(done)} has no '{name}'"
        raise _KeyFaultError(Fault((*done, *left), problem, expected, do or "set it whole to add it"))
    own_key = name if model is not None or spot is None else _own_key(name, spot)
    return own_key, None if inner is None else _default(inner.field, here, name), inner


def _own_key(name: str, spot: Spot) -> object:
    """A new key of a mapping: text, or what YAML reads where keys may be numbers."""
    keys = key_spot(spot)
    if keys is None or all(arm.type not in (int, float) for arm in arms(keys)):
        return name
    try:
        read = parse_value(name)
    except RecipeError:
        return name
    return read if isinstance(read, str | int | float) and key_text(read) == name else name


def _default(field: FieldInfo | None, here: Mapping[object, object], name: str) -> object:
    if name == "loss" and here.get("kind") in LOSS_AND_METRIC:
        return LOSS_AND_METRIC[str(here["kind"])]["loss"]
    return None if field is None or field.is_required() else field.get_default()
