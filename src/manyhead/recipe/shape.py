"""What the schema has at a key: its type, its constraints, the keys below it, and how to say so in words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import isclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from manyhead.recipe.keys import Keys, below
from manyhead.recipe.schema import Cell, Recipe, Slot, Tables


@dataclass(frozen=True)
class Spot:
    """The schema at one key: a type annotation, what constrains it, and the field where the key is one of a model."""

    annotation: Any
    constraints: tuple[object, ...] = ()
    field: FieldInfo | None = None


@dataclass(frozen=True)
class Arm:
    """One alternative of a spot's type."""

    type: Any
    constraints: tuple[object, ...]


ROOT = Spot(Recipe)


def arms(spot: Spot) -> list[Arm]:
    """The alternatives of a spot's type, with unions opened."""
    return list(_arms(spot.annotation, spot.constraints))


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model under the names that recipes use."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def slot_of(spot: Spot) -> Slot | None:
    """The slot, where the spot holds a member of a family."""
    return next((mark for arm in arms(spot) for mark in arm.constraints if isinstance(mark, Slot)), None)


def model_at(spot: Spot, value: object, tables: Tables | None = None) -> type[BaseModel] | None:
    """The model whose keys stand at a spot that holds ``value``; None where there is none, or none that is known."""
    slot = slot_of(spot)
    if slot is not None:
        kind = cast("Mapping[str, object]", value).get("kind") if isinstance(value, Mapping) else value
        entry = tables[slot.family].get(kind) if tables and isinstance(kind, str) else None
        return entry.options if entry else None
    return next((arm.type for arm in arms(spot) if _is_model(arm.type)), None)


def child(spot: Spot, value: object, key: str, tables: Tables | None = None) -> Spot | None:
    """The spot of ``key`` below a spot that holds ``value``; None where the schema has no such key or is open."""
    model = model_at(spot, value, tables)
    if model is not None:
        field = fields_of(model).get(key)
        return None if field is None else Spot(field.annotation, tuple(field.metadata), field)
    wanted = (dict,) if isinstance(value, Mapping) else (list, tuple)
    for arm in arms(spot):
        if get_origin(arm.type) in wanted:
            return Spot(get_args(arm.type)[-1 if wanted == (dict,) else 0])
    return None


def spot_at(keys: Keys, value: object, tables: Tables, root: Spot = ROOT) -> Spot | None:
    """The spot of a key below ``root``, which holds ``value``; None where the schema has no such key or is open."""
    spot: Spot | None = root
    for key in keys:
        spot = None if spot is None else child(spot, value, key, tables)
        found = below(value, key)
        value = None if found is None else found[1]
    return spot


def key_spot(spot: Spot) -> Spot | None:
    """The spot of the keys of a mapping; None where it is none."""
    return next((Spot(get_args(arm.type)[0]) for arm in arms(spot) if get_origin(arm.type) is dict), None)


def described(spot: Spot) -> str:
    """What a value at ``spot`` may be, in words."""
    return " or ".join(f"a {noun}" if noun.startswith(_COUNTABLE) else noun for noun in _nouns(spot))


def _arms(annotation: Any, constraints: tuple[object, ...]) -> Iterator[Arm]:
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        flat = [each for mark in marks for each in (mark.metadata if isinstance(mark, FieldInfo) else (mark,))]
        yield from _arms(inner, (*constraints, *flat))
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _arms(each, constraints)
    else:
        yield Arm(annotation, constraints)


def _is_model(annotation: Any) -> bool:
    return isclass(annotation) and issubclass(annotation, BaseModel)


def _nouns(spot: Spot) -> list[str]:
    alternatives = arms(spot)
    types = {arm.type for arm in alternatives}
    cell = types >= set(get_args(Cell))
    rest = [_noun(arm) for arm in alternatives if not (cell and arm.type in get_args(Cell))]
    return list(dict.fromkeys((["cell value"] if cell else []) + rest))


def _noun(arm: Arm) -> str:
    args = get_args(arm.type)
    inner = [" or ".join(_nouns(Spot(arg))) for arg in args if arg is not Ellipsis] if get_origin(arm.type) else []
    match get_origin(arm.type):
        case origin if origin is Literal:
            return str(args[0]) if len(args) == 1 else f"one of {', '.join(str(value) for value in args)}"
        case origin if origin is dict:
            return f"mapping {{{inner[0].split(' of ')[0]}: {inner[1]}}}{_counted(arm)}"
        case origin if origin is list:
            return f"list [{inner[0]}, ...]{_counted(arm)}"
        case origin if origin is tuple:
            return f"list [{', '.join(inner)}{', ...' if Ellipsis in args else ''}]{_counted(arm)}"
        case _:
            slot = arm.type is not NoneType and any(isinstance(mark, Slot) for mark in arm.constraints)
            plain = "mapping" if _is_model(arm.type) else _SCALARS.get(arm.type, "value")
            return "kind's name or mapping {kind: name, ...}" if slot else plain + _bounds(arm)


def _bounds(arm: Arm) -> str:
    words: list[str] = []
    for mark in () if arm.type is NoneType else arm.constraints:
        match mark:
            case Ge(ge=low):
                words.append(f">= {low}")
            case Gt(gt=low):
                words.append(f"> {low}")
            case Le(le=high):
                words.append(f"<= {high}")
            case Lt(lt=high):
                words.append(f"< {high}")
            case _ if hasattr(mark, "pattern"):
                pattern = str(getattr(mark, "pattern", None))
                words.append(_PATTERNS.get(pattern, f"that matches {pattern}"))
            case _:
                pass
    return f" {' and '.join(words)}" if words else ""


def _counted(arm: Arm) -> str:
    low = next((mark.min_length for mark in arm.constraints if isinstance(mark, MinLen)), 0)
    high = next((mark.max_length for mark in arm.constraints if isinstance(mark, MaxLen)), None)
    return f" of {low} to {high}" if high else f" of {low} or more" if low else ""


_COUNTABLE = ("whole number", "number", "cell", "list", "mapping", "kind", "name")
_SCALARS = {str: "text", int: "whole number", float: "number", bool: "true or false", NoneType: "null"}
_PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9_.-]*$": "of letters, digits, '_', '.' and '-', a letter or digit first",
    r"^[A-Za-z0-9][A-Za-z0-9_-]*$": "of letters, digits, '_' and '-', a letter or digit first",
}
