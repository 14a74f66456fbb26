"""Recipes under fuzz: whatever a file holds, it is loaded or refused by `RecipeError`, each problem with its place."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hostile import ANY_TEXT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyhead.errors import RecipeError
from manyhead.recipe.load import load_recipe, recipe_yaml
from tiny import tiny_recipe

SOUND = tiny_recipe(Path("encoder"))
SOUND_TEXT = yaml.safe_dump(SOUND, sort_keys=False)
KEYS = [*sorted(set(re.findall(r"([a-z_0-9]+):", SOUND_TEXT))), "extends", "set", "study", "search", "plugins", "seed"]
PIECES = st.sampled_from(
    [
        *(
            "manyhead: 1\n",
            "name: a\n",
            "tasks:\n",
            "  t: {kind: regression}\n",
            "stages: [{}]\n",
            "extends: cs224n-cpu\n",
        ),
        *(
            "- ",
            "  ",
            "\t",
            ": ",
            "{",
            "}",
            "[",
            "]",
            "&a ",
            "*a",
            "<<: ",
            "? ",
            "| \n",
            "> \n",
            "---\n",
            "...\n",
            "#",
            "%",
        ),
        *(
            '"',
            "'",
            "!!python/object:os.system",
            "!!float x",
            "!",
            "~",
            ".nan",
            "1e400",
            "0o8",
            "0x",
            "-",
            "2026-01-01",
        ),
        *(
            "\x00",
            "\x07",
            "\x85",
            "\u2028",
            "\ufeff",
            "\ud800",
            "9" * 5000,
            "yes",
            "=",
            "@",
            "`",
            "\\u0000",
            '"\\ud800"',
        ),
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    ANY_TEXT,
    st.sampled_from(
        [*KEYS, "adamw", "cls", "train", "a.b", "0", "", " ", "10 ** 9", 10**400, -1, 0, "../..", "/", "\0"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | SCALARS, inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, keys: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All keys and list items of a nested value, from the outside in."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [keys] * bool(keys) + [place for key, inner in items for place in places(inner, (*keys, key))]


PLACES = places(SOUND)


def changed(changes: list[tuple[tuple[Any, ...], str, object]]) -> Any:
    """The sound recipe with values put in, keys renamed and keys removed; a place that is gone by then is left."""
    found = copy.deepcopy(SOUND)
    for keys, what, value in changes:
        inner: Any = found
        try:
            for key in keys[:-1]:
                inner = inner[key]
            old = inner.pop(keys[-1]) if what != "put" else None
            if what == "put":
                inner[keys[-1]] = value
            elif what == "rename" and isinstance(inner, dict) and isinstance(value, str):
                inner[value] = old
        except (KeyError, IndexError, TypeError, AttributeError):
            continue
    return found


CHANGES = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(["put", "put", "put", "rename", "remove"]), VALUES),
    min_size=1,
    max_size=3,
)


def with_value(place: int, value: str) -> bytes:
    """The sound recipe with ``value`` written on the line ``place`` in place of what stands there."""
    lines = SOUND_TEXT.splitlines()
    lines[place] = lines[place].partition(": ")[0].rstrip(":") + f": {value}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


TEXTS = st.one_of(
    st.builds(with_value, st.integers(0, SOUND_TEXT.count("\n") - 1), PIECES | ANY_TEXT),
    st.binary(max_size=200),
    st.lists(PIECES, max_size=30).map(lambda pieces: "".join(pieces).encode("utf-8", "surrogatepass")),
    st.tuples(st.integers(0, len(SOUND_TEXT)), st.integers(0, 20), PIECES | ANY_TEXT).map(
        lambda cut: (SOUND_TEXT[: cut[0]] + cut[2] + SOUND_TEXT[cut[0] + cut[1] :]).encode("utf-8", "surrogatepass")
    ),
)


def refuses_or_loads(source: Any, **options: Any) -> bool:
    """Loads a recipe; whether it was sound. One that was is read back the same."""
    try:
        loaded = load_recipe(source, **options)
    except RecipeError as error:
        tells_its_places(error, source)
        return False
    assert yaml.safe_load(recipe_yaml(loaded.recipe))
    return True


def tells_its_places(error: RecipeError, source: Any) -> None:
    """A problem is one line, with its key or its line but where the whole file is what is wrong."""
    assert error.problems
    assert len(str(error).splitlines()) == len(error.problems)
    for problem in error.problems:
        assert problem.problem
        assert problem.key or problem.line or problem.path == source, problem


def loads_from_a_file(content: bytes, folder: Path) -> bool:
    path = folder / "fuzzed.yaml"
    path.write_bytes(content)
    return refuses_or_loads(path)


def loads_changed(changes: list[tuple[tuple[Any, ...], str, object]], folder: Path) -> None:
    """As a mapping and, where it can be written, as a file."""
    recipe = changed(changes)
    refuses_or_loads(recipe)
    try:
        text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).encode()
    except (UnicodeEncodeError, yaml.YAMLError, ValueError, TypeError):
        return
    loads_from_a_file(text, folder)


@settings(max_examples=200)
@given(TEXTS)
def test_any_text_is_a_recipe_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    loads_from_a_file(content, tmp_path_factory.getbasetemp())


@settings(max_examples=100)
@given(CHANGES)
def test_any_values_at_any_keys_are_a_recipe_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[tuple[Any, ...], str, object]]
) -> None:
    loads_changed(changes, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@settings(max_examples=4000, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS)
def test_very_many_texts_are_recipes_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    loads_from_a_file(content, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@settings(max_examples=3000, suppress_health_check=[HealthCheck.too_slow])
@given(CHANGES)
def test_very_many_values_at_any_keys_are_recipes_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[tuple[Any, ...], str, object]]
) -> None:
    loads_changed(changes, tmp_path_factory.getbasetemp())
