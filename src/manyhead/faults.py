"""Places where tests make things fail. Without a hook, which only tests set, each of them does nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

Value = TypeVar("Value")
Hook = Callable[[str, Any], Any]
"""Given a place and the value there; gives the value to go on with, or raises, or ends the process."""

_hooks: list[Hook] = []


def at(place: str, value: Value = None) -> Value:
    """``value``, or what the hook makes of it."""
    return cast("Value", _hooks[-1](place, value)) if _hooks else value


@contextmanager
def injected(hook: Hook) -> Iterator[None]:
    """Within the block ``hook`` is asked at every place. For tests only."""
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.pop()
