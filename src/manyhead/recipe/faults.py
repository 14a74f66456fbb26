"""A mistake in a recipe before its place is known, and the words such messages share."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from manyhead.recipe.keys import Keys


@dataclass(frozen=True)
class Fault:
    """One mistake at a key. ``reads`` are further keys whose values it was judged by."""

    keys: Keys
    problem: str
    expected: str | None = None
    do: str | None = None
    reads: tuple[Keys, ...] = ()


def nearest(word: object, choices: Iterable[str]) -> str | None:
    """The choice that ``word`` was probably meant to be; None where none is near."""
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(str(word).lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def suggestion(word: object, choices: Iterable[str]) -> str | None:
    """``did you mean '...'?`` for the choice nearest to ``word``; None where none is near."""
    near = nearest(word, choices)
    return None if near is None else f"did you mean '{near}'?"


def choice(word: object, choices: Iterable[str]) -> tuple[str | None, str | None]:
    """What was expected instead of ``word`` and what to do: all the choices, and the nearest one."""
    names = list(choices)
    return (f"one of {', '.join(names)}" if names else None), suggestion(word, names)


def shown(value: object) -> str:
    """A value in a message: on one line, as YAML would have it, and not long."""
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
