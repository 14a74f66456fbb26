"""Slow and idle clients: each socket has so much time for headers, body and reading the answer, and there are so many.

uvicorn's protocols have a limit of time for none of these, and its limit of connections turns everybody away once idle
ones have used it up. Here the one that has waited longest makes room: first among those that never asked anything.
"""

import asyncio
import json
import logging
from typing import Any, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from manyhead.serving.limits import Limits
from manyhead.serving.metrics import Metrics

log = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0

_BODY = json.dumps({"error": {"code": "http", "message": "the request is not HTTP, or its head is too long"}}).encode()
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: "
    + str(len(_BODY)).encode()
    + b"\r\n\r\n"
    + _BODY
)


class Connections:
    """All sockets of a server. `sweep` closes those whose time is over."""

    def __init__(self, limits: Limits, most: int, metrics: Metrics) -> None:
        self.limits = limits
        self._most = most
        self._metrics = metrics
        # In the order in which they came, and in which they were last answered.
        self._new: dict[GuardedProtocol, None] = {}
        self._known: dict[GuardedProtocol, None] = {}

    def __len__(self) -> int:
        return len(self._new) + len(self._known)

    def add(self, connection: "GuardedProtocol") -> None:
        """A new one, for which another may have to go."""
        if len(self) >= self._most:
            waiting = (each for group in (self._new, self._known) for each in group if each.waits)
            self.drop(next(waiting, connection))
        self._new[connection] = None

    def answered(self, connection: "GuardedProtocol") -> None:
        """It got an answer, so others go before it."""
        self.remove(connection)
        self._known[connection] = None

    def remove(self, connection: "GuardedProtocol") -> None:
        """It is closed."""
        self._new.pop(connection, None)
        self._known.pop(connection, None)

    def drop(self, connection: "GuardedProtocol") -> None:
        """Closes it at once, whatever is unsent."""
        self.remove(connection)
        self._metrics.count("dropped_connections")
        connection.transport.abort()

    def drop_all(self) -> None:
        """Closes what is left at the end."""
        for connection in [*self._new, *self._known]:
            self.drop(connection)

    async def sweep(self) -> None:
        """Closes what takes too long, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = asyncio.get_running_loop().time()
            for connection in [*self._new, *self._known]:
                if connection.is_overdue(now):
                    self.drop(connection)


class GuardedProtocol(cast("type[Any]", AutoHTTPProtocol)):
    """uvicorn's protocol, watched. ``connections`` is set in the subclass that `guarded` makes."""

    connections_of_server: Connections

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client has come."""
        super().connection_made(transport)
        self._head_began: float | None = self.loop.time()
        self._unsent, self._unsent_since = 0, 0.0
        self.connections_of_server.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self.connections_of_server.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some of a head, a body, or several requests."""
        if self._head_began is None and self.waits:
            self._head_began = self.loop.time()
        super().data_received(data)
        if not self.waits:
            self._head_began = None

    def on_response_complete(self) -> None:
        """An answer has been written."""
        self._head_began = None
        self.connections_of_server.answered(self)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What cannot be read as HTTP is told so as all errors are."""
        del msg
        self.transport.write(_BAD_REQUEST)
        self.transport.close()

    @property
    def waits(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def is_overdue(self, now: float) -> bool:
        """Whether a head has taken too long, or an answer is not read: none of it since the time of a body."""
        limits = self.connections_of_server.limits
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > limits.body_seconds:
            return True
        return self._head_began is not None and self.waits and now - self._head_began > limits.header_seconds


def guarded(connections: Connections) -> type[asyncio.Protocol]:
    """The protocol of a server whose sockets are ``connections``."""
    return type("Guarded", (GuardedProtocol,), {"connections_of_server": connections})
