"""A server on a real port, in a thread of the test's process, and ways to ask it."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from manyhead.inference.predictor import Model
from manyhead.serving.limits import Limits
from manyhead.serving.served import Served, serve_model
from manyhead.serving.server import Server, Serving


@dataclass
class Live:
    """A running server; ``result`` holds what `Server.run` gave."""

    server: Server
    thread: threading.Thread
    result: list[int | None]
    client: httpx.Client

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def post(self, path: str, value: Any, **headers: str) -> httpx.Response:
        return self.client.post(path, json=value, headers=headers)

    def post_bytes(self, path: str, body: Any, kind: str = "application/json") -> httpx.Response:
        return self.client.post(path, content=body, headers={"content-type": kind})

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(path, headers=headers)

    def raw(self, data: bytes = b"") -> socket.socket:
        """A socket that has sent ``data``."""
        found = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        found.sendall(data)
        return found

    def metric(self, name: str) -> float:
        lines = self.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"manyhead_{name} "))


def post_bytes(path: str, body: bytes, *, length: int | None = None, more: str = "") -> bytes:
    """A request as it goes over the wire."""
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n"
    return head.encode() + more.encode() + b"\r\n" + body


def answer_of(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and body of the next answer; status 0 where the server closes without one."""
    with connection.makefile("rb") as file:
        try:
            first = file.readline()
        except ConnectionResetError:
            first = b""
        if not first:
            return 0, {}
        length = 0
        while (line := file.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return int(first.split()[1]), json.loads(file.read(length))


@contextmanager
def live(
    folder: Path, *, token: str | None = None, load: Callable[[], Served] | None = None, **limits: Any
) -> Iterator[Live]:
    """A server of the run in ``folder``, ready."""
    ready = threading.Event()
    serving = Serving(
        "127.0.0.1",
        0,
        token,
        Limits(**limits),
        load or (lambda: serve_model(folder, lambda: Model.load(folder))),
        lambda *_: ready.set(),
    )
    server = Server(serving)
    result: list[int | None] = []
    thread = threading.Thread(target=lambda: result.append(server.run()))
    thread.start()
    try:
        assert ready.wait(60)
        with httpx.Client(base_url=server.url, timeout=30) as client:
            yield Live(server, thread, result, client)
    finally:
        server.end()
        thread.join(60)
        assert not thread.is_alive()
