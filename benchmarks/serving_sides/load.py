"""A generator of requests that takes little of the machine: one event loop, bare sockets, requests made beforehand."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

GIVE_UP_SECONDS = 120.0


@dataclass(frozen=True)
class Asked:
    """A request as it goes over the wire, and the texts in it."""

    data: bytes
    texts: int


@dataclass
class Seen:
    """What came back: of each request its status (0: none), seconds, and texts."""

    seconds: float = 0.0
    answers: list[tuple[int, float, int]] = field(default_factory=list[tuple[int, float, int]])

    def summary(self) -> dict[str, Any]:
        """Texts a second that were answered, percentiles of both kinds of answers, and how many of each status."""
        good = [taken for status, taken, _ in self.answers if status == 200]
        refused = [taken for status, taken, _ in self.answers if status in (429, 503)]
        texts = sum(texts for status, _, texts in self.answers if status == 200)
        return {
            "seconds": self.seconds,
            "texts_per_second": texts / self.seconds,
            "requests_per_second": len(good) / self.seconds,
            "answered_ms": percentiles(good),
            "refused_ms": percentiles(refused),
            "statuses": {str(status): number for status, number in Counter(s for s, _, _ in self.answers).items()},
        }


def percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """p50, p99 and the longest, in milliseconds."""
    if not seconds:
        return None
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {"p50": float(p50), "p99": float(p99), "most": max(seconds) * 1000}


class Connection(asyncio.Protocol):
    """One socket that asks and waits, in turn."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiter: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """A connected one. Raises OSError."""
        _, found = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return found

    async def ask(self, asked: Asked) -> tuple[int, float, int]:
        """Status, seconds and texts; status 0 where the server closes."""
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        self._transport.write(asked.data)
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                status = await self._waiter
        except TimeoutError:
            status = 0
        return status, time.perf_counter() - began, asked.texts

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Closes it."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The server closed it."""
        del exc
        self._done(0)

    def data_received(self, data: bytes) -> None:
        """Some of an answer."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._buffer) >= end + 4 + length:
            self._buffer.clear()
            self._done(int(head[9:12]))

    def _done(self, status: int) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(status)


async def closed_loop(port: int, asked: Sequence[Asked], clients: int, seconds: float) -> Seen:
    """``clients`` that each ask the next as soon as they are answered."""
    seen, end = Seen(), time.perf_counter() + seconds

    async def client(number: int) -> None:
        connection, place = await Connection.open(port), number
        while time.perf_counter() < end:
            if not connection.is_open:
                connection = await Connection.open(port)
            seen.answers.append(await connection.ask(asked[place % len(asked)]))
            place += clients
        connection.close()

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    seen.seconds = time.perf_counter() - began
    return seen


async def open_loop(port: int, asked: Sequence[Asked], per_second: float, seconds: float) -> Seen:
    """Requests that come when they come, ``per_second`` on average, whatever became of those before."""
    seen, draw = Seen(), random.Random(1)
    free: list[Connection] = []
    running: set[asyncio.Task[None]] = set()

    async def one(each: Asked) -> None:
        connection = free.pop() if free else None
        try:
            if connection is None or not connection.is_open:
                connection = await Connection.open(port)
            seen.answers.append(await connection.ask(each))
        except OSError:
            seen.answers.append((0, 0.0, each.texts))
            return
        if connection.is_open:
            free.append(connection)

    began = due = time.perf_counter()
    number = 0
    while due < began + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(one(asked[number % len(asked)]))
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1
        due += draw.expovariate(per_second)
    if running:
        await asyncio.wait(running)
    seen.seconds = time.perf_counter() - began
    for each in free:
        each.close()
    return seen


async def crowd(port: int, number: int, seconds: float) -> int:
    """``number`` sockets, half of them silent and half with a head that never ends. Gives how many could be opened.

    Those that the server closes are opened again.
    """
    draw, end = random.Random(2), time.perf_counter() + seconds
    opened = 0

    async def one(dripping: bool) -> None:
        nonlocal opened
        await asyncio.sleep(draw.random() * seconds / 3)
        while time.perf_counter() < end:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(1)
                continue
            opened += 1
            try:
                if dripping:
                    writer.write(b"POST /v1/embed HTTP/1.1\r\nhost: localhost\r\n")
                while time.perf_counter() < end and not reader.at_eof():
                    if dripping:
                        writer.write(b"x-slow: 1\r\n")
                    try:
                        async with asyncio.timeout(4):
                            await reader.read(1)
                    except TimeoutError:
                        continue
            except OSError:
                pass
            writer.close()
            await asyncio.sleep(1)

    await asyncio.gather(*(one(each % 2 == 0) for each in range(number)))
    return opened
