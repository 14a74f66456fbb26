"""Stopping on SIGINT and SIGTERM: at a safe place while it trains, else at once; the second time always at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption(BaseException):
    """A signal asked to stop. It is no `Exception`, so that nothing on its way takes it for an error of its own."""


class StopRequest:
    """Which signal asked to stop, if any. A signal raises `Interruption` wherever it comes, unless it is `deferred`.

    ``tell`` is given a line for the user when the first one comes while it is deferred.
    """

    def __init__(self, tell: Callable[[str], None] = lambda _: None, *, deferred: bool = False) -> None:
        self.signal_number: int | None = None
        self._tell = tell
        self._deferred = deferred

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def check(self) -> None:
        """Raises `Interruption` if a signal came."""
        if self:
            raise Interruption

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block a signal is only remembered; the block asks for it by `check` where it can stop.

        One that came and was not asked for raises `Interruption` behind the block.
        """
        self._deferred = True
        try:
            self.check()
            yield
        finally:
            self._deferred = False
        self.check()

    def catch(self, number: int, frame: FrameType | None) -> None:
        """Handles the first signal; the next one ends the process at once."""
        del frame
        self.signal_number = number
        for caught in SIGNALS:
            signal.signal(caught, signal.SIG_DFL)
        if not self._deferred:
            raise Interruption
        with suppress(Exception):  # amid a line that is being printed no other can be, and nobody may read any more
            self._tell("stopping after this step, once it is saved; a second signal ends at once")


@contextmanager
def stop_on_signals(request: StopRequest) -> Iterator[StopRequest]:
    """Gives the first SIGINT or SIGTERM to ``request``; the old handlers are back after the block.

    Outside the main thread nothing is caught.
    """
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, request.catch)
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
