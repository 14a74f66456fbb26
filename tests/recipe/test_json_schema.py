import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from manyhead.recipe.json_schema import json_schema_text, recipe_json_schema
from manyhead.recipe.load import load_recipe, recipe_yaml
from manyhead.recipe.shipped import shipped_recipes, shipped_text
from manyhead.recipe.tables import TABLES
from manyhead.recipe.yaml_text import parse_document

COMMITTED = Path(__file__).parents[2] / "schema" / "recipe.schema.json"
SCHEMA = recipe_json_schema()
TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
    "integer": int, "number": (int, float),
}  # fmt: skip
KNOWN = {
    "$ref", "$defs", "$schema", "title", "description", "default", "type", "enum", "const", "properties", "required",
    "additionalProperties", "patternProperties", "propertyNames", "items", "prefixItems", "minItems", "maxItems",
    "minProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern", "anyOf", "oneOf",
    "if", "then", "else",
}  # fmt: skip


def fits(value: Any, schema: Any) -> bool:
    """Whether a value fits a schema, by the keywords that ours uses."""
    if isinstance(schema, bool):
        return schema
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    if "$ref" in schema and not fits(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]):
        return False
    if "if" in schema and not fits(value, schema["then" if fits(value, schema["if"]) else "else"]):
        return False
    if "anyOf" in schema and not any(fits(value, each) for each in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(fits(value, each) for each in schema["oneOf"]) != 1:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if "type" in schema and (
        not isinstance(value, TYPES[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean")
    ):
        return False
    if isinstance(value, dict):
        return fits_mapping(value, schema)
    if isinstance(value, list):
        items = schema.get("prefixItems", [])
        return schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)) and all(
            fits(item, items[place] if place < len(items) else schema.get("items", True))
            for place, item in enumerate(value)
        )
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value) is not None
    return value is None or all(
        holds(value, schema[word])
        for word, holds in {
            "minimum": lambda a, b: a >= b, "maximum": lambda a, b: a <= b,
            "exclusiveMinimum": lambda a, b: a > b, "exclusiveMaximum": lambda a, b: a < b,
        }.items()
        if word in schema
    )  # fmt: skip


def fits_mapping(value: dict[Any, Any], schema: dict[str, Any]) -> bool:
    if not set(schema.get("required", ())) <= set(value) or len(value) < schema.get("minProperties", 0):
        return False
    for key, item in value.items():
        name = str(key)
        patterns = [each for pattern, each in schema.get("patternProperties", {}).items() if re.search(pattern, name)]
        own = [schema["properties"][name]] if name in schema.get("properties", {}) else patterns
        if not fits(name, schema.get("propertyNames", True)):
            return False
        if not all(fits(item, each) for each in own or [schema.get("additionalProperties", True)]):
            return False
    return True


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from (value for key, value in schema.items() if key == "$ref")
    for item in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from references(item)


def test_committed_schema_is_current() -> None:
    assert COMMITTED.read_text("utf-8") == json_schema_text(), "run: python -m manyhead.recipe.json_schema > schema/..."


def test_command_prints_it() -> None:
    command = [sys.executable, "-m", "manyhead.recipe.json_schema"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == json_schema_text()


def test_references_lead_somewhere_and_no_mark_is_left() -> None:
    names = {f"#/$defs/{name}" for name in SCHEMA["$defs"]}
    assert set(references(SCHEMA)) <= names
    assert "x-family" not in json_schema_text()
    for family, members in TABLES.items():
        assert f"#/$defs/{family}" in set(references(SCHEMA))
        assert SCHEMA["$defs"][family]["oneOf"][0]["enum"] == list(members)


@pytest.mark.parametrize("name", [recipe.name for recipe in shipped_recipes()])
def test_shipped_recipes_fit(name: str) -> None:
    assert fits(parse_document(shipped_text(name)).value, SCHEMA)
    assert fits(parse_document(recipe_yaml(load_recipe(name).recipe)).value, SCHEMA)


def test_extending_recipes_fit() -> None:
    assert fits({"manyhead": 1, "name": "a", "extends": "b", "set": {"seed": 1}}, SCHEMA)
    assert not fits({"manyhead": 1, "name": "a", "extends": "b", "seed": 1}, SCHEMA)
    assert not fits({"manyhead": 1, "extends": "b"}, SCHEMA)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sed", 1),
        ("seed", -1),
        ("manyhead", 2),
        ("name", "a/b"),
        ("encoder", {"dropout": 1}),
        ("encoder", {"pooling": "men"}),
        ("encoder", {"pooling": {"kind": "men"}}),
        ("encoder", {"pooling": {"kind": "mean", "kernels": [1]}}),
        ("encoder", {"pooling": {}}),
        ("tasks", {}),
        ("stages", []),
        ("stages", [{"batch_size": 0}]),
        ("encoder", {"experts": "lora"}),
        ("encoder", {"experts": {"kind": "low_rank", "rank": 0}}),
        ("encoder", {"projections": "dense"}),
        ("encoder", {"projections": ["dense", None]}),
        ("stages", [{"regularisers": "smart"}]),
        ("stages", [{"regularisers": ["smart", "smrt"]}]),
        ("stages", [{"regularisers": ["smart", {"kind": "l1", "weight": "x"}]}]),
        ("stages", [{"regularisers": None}]),
        ("stages", [{"pretraining": "mlmm"}]),
        ("stages", [{"distillation": {"teachers": []}}]),
        ("stages", [{"freeze": "encoder.*"}]),
        ("stages", [{"balancing": {"kind": "fls"}}]),
        ("grid", {"seed": 1}),
        ("search", {"keys": {"seed": {"low": 1}}}),
    ],
)
def test_mistakes_do_not_fit(key: str, value: object) -> None:
    recipe = yaml.safe_load(recipe_yaml(load_recipe("quickstart").recipe))
    assert fits(recipe, SCHEMA)
    assert not fits({**recipe, key: value}, SCHEMA)


def test_optional_members_and_lists_of_members_fit() -> None:
    recipe = yaml.safe_load(recipe_yaml(load_recipe("quickstart").recipe))
    stage = recipe["stages"][0]
    for key, value in (
        ("encoder", {"experts": None, "projections": []}),
        ("encoder", {"experts": "copies", "projections": ["dense", {"kind": "mlp", "width": 8}]}),
        ("encoder", {"experts": {"kind": "low_rank", "rank": 8}}),
        ("stages", [{**stage, "pretraining": None, "regularisers": [], "distillation": None}]),
        ("stages", [{**stage, "pretraining": {"kind": "mlm", "probability": 0.2}}]),
        ("stages", [{**stage, "regularisers": ["r_drop", {"kind": "smart", "tasks": ["a"]}]}]),
        ("grid", {"stages.0.optimizer": ["adam", {"kind": "adamw", "lr": 1e-5}], "seed": [1, 2]}),
        ("search", {"keys": {"seed": [1, 2], "encoder.dropout": {"low": 0, "high": 0.5}}}),
    ):
        assert fits({**recipe, key: value}, SCHEMA), (key, value)
