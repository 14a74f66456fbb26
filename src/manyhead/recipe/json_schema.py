"""The JSON Schema of recipes, for editors: ``python -m manyhead.recipe.json_schema`` prints it.

Made from the models and the families' tables. A slot is one of its family's names or one of its members' options.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

from manyhead.recipe.schema import FAMILY_MARK, Entry, Recipe
from manyhead.recipe.tables import TABLES

_REF = "#/$defs/"


def recipe_json_schema() -> dict[str, Any]:
    """The schema of a recipe file: a whole recipe, or one that extends another."""
    recipe = Recipe.model_json_schema(ref_template=_REF + "{model}")
    definitions: dict[str, Any] = recipe.pop("$defs")
    for family, members in TABLES.items():
        definitions |= _family(family, members)
    definitions |= {"Recipe": recipe, "Extending": _extending(recipe)}
    return cast(
        "dict[str, Any]",
        _filled(
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "title": "Recipe of manyhead",
                "if": {"required": ["extends"]},
                "then": {"$ref": _REF + "Extending"},
                "else": {"$ref": _REF + "Recipe"},
                "$defs": dict(sorted(definitions.items())),
            }
        ),
    )


def json_schema_text() -> str:
    """The schema as it stands in ``schema/recipe.schema.json``."""
    return json.dumps(recipe_json_schema(), indent=2, ensure_ascii=False) + "\n"


def _family(family: str, members: Mapping[str, Entry]) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    for kind, entry in members.items():
        options = entry.options.model_json_schema(ref_template=_REF + "{model}")
        definitions |= options.pop("$defs", {})
        options["required"] = sorted({"kind", *options.get("required", [])})
        definitions[f"{family}.{kind}"] = options
    refs = [{"$ref": f"{_REF}{family}.{kind}"} for kind in members]
    return {**definitions, family: {"oneOf": [{"enum": list(members)}, *refs]}}


def _extending(recipe: Mapping[str, Any]) -> dict[str, Any]:
    properties = cast("Mapping[str, Any]", recipe["properties"])
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["manyhead", "name", "extends"],
        "properties": {
            "manyhead": properties["manyhead"],
            "name": properties["name"],
            "extends": {"type": "string", "description": "A path relative to this file, or a shipped recipe's name."},
            "set": {"type": "object", "description": "Dotted keys, such as stages.0.epochs, and their values."},
        },
    }


def _filled(schema: object) -> object:
    """The schema with references to families in place of their marks."""
    if isinstance(schema, list):
        return [_filled(item) for item in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    filled = {key: _filled(value) for key, value in cast("dict[str, object]", schema).items()}
    family = filled.pop(FAMILY_MARK, None)
    return filled if family is None else {"$ref": f"{_REF}{family}", **filled}


if __name__ == "__main__":
    print(json_schema_text(), end="")
