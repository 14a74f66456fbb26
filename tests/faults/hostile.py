"""What the tests of hostile data share: nasty texts and bytes, a small task, and files made of them."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from manyhead.errors import ManyheadError
from manyhead.recipe.schema import Recipe, Task
from manyhead.recipe.tables import TABLES

TEXTS = {
    "empty": "",
    "spaces": " \u00a0\u2003",
    "words for nothing": "null",
    "not available": "NA",
    "not a number": "nan",
    "nul": "a\0b",
    "only nul": "\0",
    "mark": "\ufefftext",
    "carriage return": "one\rtwo",
    "line break": "one\ntwo",
    "other line ends": "a\u2028b\x85c\x0bd",
    "quotes": '"Yes" he said, "',
    "latin": "caf\u00e9",
    "surrogate": "half \ud83d of a pair",
    "surrogates": "\udfff\udc00" * 50,
    "emoji": "\U0001f469\u200d\U0001f469\u200d\U0001f467\U0001f3fd",
    "right to left": "\u202eabc\u202c \u05d0\u05d1",
    "combining": "e" + "\u0301" * 10_000,
    "100,000 characters": "the film is good " * 5_900,
    "a million characters": "the film is good " * 59_000,
    "one word of a megabyte": "x" * 1_000_000,
    "a million without spaces": "\u597d" * 1_000_000,
    "formula": "=1+1",
}
"""Names and texts that files of the field are known to hold, and readers known to fall over."""

PIECES = st.sampled_from(
    [
        *(
            "\ud800",
            "\udfff",
            "\udc80a",
            "\ud83d\udc69",
            "\ufffd",
            "\0",
            "\x1b[31m",
            "\x85",
            "\u2028",
            "\ufeff",
            "\u00e9",
        ),
        *("\u200d", "\u202e", "\u0301" * 9, "\U0001f469\u200d\U0001f467", "\u05d0", "\u597d", "\U00030000", "\ue000"),
        *('"', "'", ",", "\t", ";", "\n", "\r", "\r\n", " ", "\\", "#", "NA", "null", "nan", "the film", "x" * 200),
    ]
)

ANY_TEXT = st.lists(PIECES | st.text(max_size=6) | st.characters(categories=["C"]), max_size=6).map("".join)
"""Lone surrogates, control characters and unassigned ones, often; `st.text` alone draws them hardly ever."""


def make_task(**keys: Any) -> Task:
    """A task of two classes on one text, but for ``keys``."""
    usual: dict[str, Any] = {
        "kind": "classification",
        "text": ["text"],
        "target": "label",
        "labels": {0: "bad", 1: "good"},
        "files": {"train": "train.csv"},
        "max_rejected": 1.0,
    }
    if keys.get("kind") == "regression":
        del usual["labels"]
    return Task.model_validate(usual | keys, context={"tables": TABLES})


def make_recipe(folder: Path, **tasks: Task) -> Recipe:
    """A recipe of ``tasks`` whose files lie in ``folder``."""
    plain = {"manyhead": 1, "name": "test", "data_dir": str(folder), "tasks": tasks}
    return Recipe.model_validate(plain, context={"tables": TABLES})


def tells_where(error: ManyheadError, place: Path | str) -> None:
    """Every line of an error for the user names its place."""
    assert str(error)
    assert all(str(place) in line for line in str(error).splitlines())


def shown(text: str) -> str:
    """The text as readers must hand it on: U+FFFD for lone surrogates."""
    return "".join("\ufffd" if 0xD800 <= ord(char) <= 0xDFFF else char for char in text)
