"""Pydantic's errors in the words of recipes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args, get_origin

from manyhead.errors import RecipeError
from manyhead.recipe.faults import Fault, choice, nearest, shown, suggestion
from manyhead.recipe.keys import Keys, below, key_text, value_at
from manyhead.recipe.schema import Tables
from manyhead.recipe.shape import ROOT, Spot, arms, described, fields_of, key_spot, model_at, spot_at
from manyhead.recipe.yaml_text import parse_value

Details = Mapping[str, Any]
"""One error of pydantic: ``loc``, ``type``, ``msg``, ``ctx``."""


@dataclass(frozen=True)
class _Located:
    """An error at a key of the recipe. ``union`` is the key whose type has several alternatives, of which this is one.

    ``names_key`` says that the key's own name is at fault, not its value.
    """

    keys: Keys
    error: Details
    union: Keys | None
    names_key: bool


@dataclass(frozen=True)
class _Schema:
    """What a value was judged by."""

    tables: Tables
    root: Spot

    def spot(self, keys: Keys, value: object) -> Spot | None:
        return spot_at(keys, value, self.tables, self.root)


def explain(errors: Sequence[Details], value: object, tables: Tables, root: Spot = ROOT) -> list[Fault]:
    """What is wrong with ``value``, from what pydantic found in it: one fault a key, in the order found.

    ``root`` is the model it was judged by: a recipe, unless said.
    """
    located = [_locate(loc, error, value) for loc, error in _flat(errors, ())]
    faults: dict[Keys, Fault] = {}
    for each in located:
        if not _is_other_alternative(each, located):
            faults.setdefault(each.keys, _fault(each, value, _Schema(tables, root)))
    return list(faults.values())


def _flat(errors: Sequence[Details], prefix: tuple[int | str, ...]) -> Iterator[tuple[tuple[int | str, ...], Details]]:
    """Errors with those of a family's members, which a slot keeps inside its own, put in their place."""
    for error in errors:
        loc = prefix + cast("tuple[int | str, ...]", error["loc"])
        if error["type"] == "member":
            yield from _flat(error["ctx"]["errors"], loc)
        else:
            yield loc, error


def _locate(loc: tuple[int | str, ...], error: Details, value: object) -> _Located:
    """The key of an error: pydantic's path less the names it gives to alternatives of a type."""
    keys: Keys = ()
    union: Keys | None = None
    for place, segment in enumerate(loc):
        found = below(value, key_text(segment))
        if segment == "[key]":
            return _Located(keys, error, union, names_key=True)
        if found is not None or (error["type"] == "missing" and place == len(loc) - 1):
            keys = (*keys, key_text(segment))
            value = None if found is None else found[1]
        elif union is None:
            union = keys
    return _Located(keys, error, union, names_key=False)


def _is_other_alternative(each: _Located, located: Sequence[_Located]) -> bool:
    """Whether a value was tried as this alternative too, while another one came nearer: its faults lie deeper."""
    return each.union == each.keys and any(
        other.union == each.union and len(other.keys) > len(each.keys) for other in located
    )


def _fault(located: _Located, value: object, schema: _Schema) -> Fault:
    keys, error = located.keys, located.error
    if located.names_key:
        parent = schema.spot(keys[:-1], value)
        names = None if parent is None else key_spot(parent)
        return Fault(keys, f"{shown(keys[-1])} cannot be a name here", None if names is None else described(names))
    if error["type"] in ("value_error", "assertion_error"):
        return Fault(keys, str(error["msg"]).partition(", ")[2])
    return _BY_TYPE.get(str(error["type"]), _wrong_value)(keys, value, schema, cast("Details", error.get("ctx", {})))


def _unknown_kind(keys: Keys, value: object, schema: _Schema, ctx: Details) -> Fault:
    del schema
    expected, do = choice(ctx["kind"], ctx["choices"])
    at = keys if isinstance(value_at(keys, value), str) else (*keys, "kind")
    return Fault(at, f"unknown kind '{ctx['kind']}'", expected, do)


def _no_kind(keys: Keys, value: object, schema: _Schema, ctx: Details) -> Fault:
    del value, schema
    choices = ", ".join(cast("list[str]", ctx["choices"]))
    return Fault(keys, "has no kind", f"one of {choices}", "write the name alone, or {kind: NAME, ...}")


def _unknown_key(keys: Keys, value: object, schema: _Schema, ctx: Details) -> Fault:
    del ctx
    parent = schema.spot(keys[:-1], value)
    model = None if parent is None else model_at(parent, value_at(keys[:-1], value), schema.tables)
    names = [] if model is None else list(fields_of(model))
    near = nearest(keys[-1], names)
    if near is None:
        return Fault(keys, "unknown key", f"one of {', '.join(names)}" if names else None, "remove it")
    return Fault(keys, "unknown key", do=f"did you mean '{near}'?", reads=((*keys[:-1], near),))


def _missing(keys: Keys, value: object, schema: _Schema, ctx: Details) -> Fault:
    del ctx
    spot = schema.spot(keys, value)
    if spot is None:
        return Fault(keys, "is missing", do="add it")
    about = spot.field.description if spot.field else None
    do = f"add it: {about[0].lower()}{about[1:].rstrip('.')}" if about else "add it"
    return Fault(keys, "is missing", described(spot), do)


def _wrong_value(keys: Keys, value: object, schema: _Schema, ctx: Details) -> Fault:
    del ctx
    spot = schema.spot(keys, value)
    given = value_at(keys, value)
    if spot is None:
        return Fault(keys, f"cannot be {shown(given)}")
    return Fault(keys, f"cannot be {shown(given)}", described(spot), _advice(given, spot))


def _advice(given: object, spot: Spot) -> str | None:
    """What to write instead, where it is plain."""
    types = {arm.type for arm in arms(spot)}
    advice = None
    if isinstance(given, str) and bool in types and given.lower() in _SWITCHES:
        advice = f"write {_SWITCHES[given.lower()]}"
    elif isinstance(given, str) and types & {int, float} and _is_number(given):
        advice = "remove the quotes"
    elif isinstance(given, str):
        literals = [arm.type for arm in arms(spot) if get_origin(arm.type) is Literal]
        advice = suggestion(given, [key_text(name) for literal in literals for name in get_args(literal)])
    elif isinstance(given, float) and given.is_integer() and int in types:
        advice = f"write {int(given)}"
    elif isinstance(given, int | float) and str in types:
        advice = f'write "{key_text(given)}", in quotes'
    elif given is None and spot.field is not None and not spot.field.is_required():
        advice = "leave the key out for its default"
    if advice is None and isinstance(given, str | Mapping) and any(get_origin(arm.type) is list for arm in arms(spot)):
        advice = "write a list of it: put it in square brackets"
    return advice


def _is_number(text: str) -> bool:
    try:
        return isinstance(parse_value(text), int | float)
    except RecipeError:
        return False


_SWITCHES = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_BY_TYPE: dict[str, Callable[[Keys, object, _Schema, Details], Fault]] = {
    "extra_forbidden": _unknown_key,
    "invalid_key": _unknown_key,
    "missing": _missing,
    "unknown_kind": _unknown_kind,
    "no_kind": _no_kind,
}
