"""What a running forward is made of, for modules deep inside the encoder that nobody hands it to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor

from manyhead.encoder.attention import PackedLayout
from manyhead.packed import Route

_CURRENT: ContextVar["Flow"] = ContextVar("flow")


@dataclass(frozen=True)
class Flow:
    """One packed forward: the ``layout`` and ``lengths`` of its sequences, and the ``routes`` of its tokens.

    ``inputs`` keeps states (1, T, D) of layers, by number, for those who add to them further on.
    """

    layout: PackedLayout
    lengths: Sequence[int]
    routes: Sequence[Route]
    inputs: dict[int, Tensor] = field(default_factory=dict)

    def routes_of_all(self) -> Sequence[Route]:
        """The routes; raises ValueError unless they cover all tokens."""
        covered = [token for _, start, stop in self.routes for token in (start, stop)]
        if covered[::2] != [0, *covered[1:-1:2]] or covered[-1:] != [sum(self.lengths)]:
            raise ValueError("an encoder with experts needs routes that cover all tokens, in order")
        return self.routes


@contextmanager
def flowing(flow: Flow) -> Iterator[None]:
    """Makes ``flow`` the current one while the context lasts."""
    token = _CURRENT.set(flow)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_flow() -> Flow:
    """The flow of the forward that is running."""
    return _CURRENT.get()
