"""Stopping on SIGINT and SIGTERM: the first lets the step end and saves, the second ends at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Which signal asked to stop, if any."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextmanager
def stop_on_signals(tell: Callable[[str], None]) -> Iterator[StopRequest]:
    """Catches SIGINT and SIGTERM once: a second one ends the process. The old handlers are back after the block.

    ``tell`` is given a line for the user when the first one comes. Outside the main thread nothing is caught.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def catch(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal_number = number
        for caught in SIGNALS:
            signal.signal(caught, signal.SIG_DFL)
        tell("stopping when this step, or this evaluation, is done and saved; a second signal ends at once")

    for number in SIGNALS:
        signal.signal(number, catch)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
