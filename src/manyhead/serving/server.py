"""A server's life: bind, load, tell, answer, reload on SIGHUP, finish on SIGTERM."""

import asyncio
import errno
import gc
import logging
import math
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from manyhead.errors import ManyheadError, UsageError
from manyhead.serving.app import make_app
from manyhead.serving.auth import Guard
from manyhead.serving.batching import Batcher
from manyhead.serving.connections import Connections, guarded
from manyhead.serving.limits import Limits, connections_allowed
from manyhead.serving.metrics import Metrics
from manyhead.serving.served import Served
from manyhead.serving.state import State

log = logging.getLogger(__name__)

_BACKLOG = 2048
_ACCEPTED_AT_ONCE = 64
"""More would keep everybody waiting while a crowd comes in."""
_POLL_SECONDS = 0.02
_LAST_ANSWERS_SECONDS = 5


@dataclass(frozen=True)
class Serving:
    """How to serve: ``load`` reads the model anew each time, ``tell`` is called with it once requests are taken."""

    host: str
    port: int
    token: str | None
    limits: Limits
    load: Callable[[], Served]
    tell: Callable[[str, Served], None]


class Server:
    """Serves from `run` on, until a signal or `end`. Raises `UsageError` for an address that cannot be had."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._listener = bind(serving.host, serving.port)
        self.url = url_of(serving.host, self._listener)
        self._loop = asyncio.new_event_loop()
        self._ending: _Ending | None = None
        self._loader: _Loader | None = None

    def run(self) -> int | None:
        """Serves. Gives None where all that was accepted was answered, else the signal that ended it before.

        Raises `CheckpointError` for a model that cannot be served.
        """
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            return runner.run(self._run())

    def end(self, number: int = signal.SIGTERM) -> None:
        """Lets requests finish and ends; from any thread, also where it has ended."""
        self._call(lambda: self._ending and self._ending.begin(number))

    def reload(self) -> None:
        """Takes the model from its folder anew, beside the requests; from any thread."""
        self._call(lambda: self._loader and self._loader.reload())

    def _call(self, what: Callable[[], object]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)

    async def _run(self) -> int | None:
        serving, limits, metrics = self._serving, self._serving.limits, Metrics()
        batcher = Batcher(limits, metrics)
        state = State(limits, Guard(serving.token, serving.host), metrics, batcher)
        connections = Connections(limits, connections_allowed(limits.max_connections), metrics)
        server = uvicorn.Server(_config(state, connections))
        ending = self._ending = _Ending(server, state)
        loader = self._loader = _Loader(serving, state, self.url)
        self._catch_signals()
        # What `serve` would do first is take the signals, which are ours.
        running = asyncio.create_task(server._serve([self._listener]))
        watching = [asyncio.create_task(connections.sweep()), asyncio.create_task(ending.wait())]
        try:
            while not server.started and not running.done():
                await asyncio.sleep(_POLL_SECONDS)
            self._listener.listen(_BACKLOG)  # the loop has set it to what it accepts at once
            await loader.first()
            await running
        finally:
            server.should_exit = True
            await asyncio.wait([running])
            for task in watching:
                task.cancel()
            connections.drop_all()
            await asyncio.to_thread(batcher.close)
        return ending.left_over

    def _catch_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self.end, number)
            self._loop.add_signal_handler(signal.SIGHUP, self.reload)


def _config(state: State, connections: Connections) -> uvicorn.Config:
    return uvicorn.Config(
        make_app(state),
        http=guarded(connections),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(state.limits.idle_seconds),
        timeout_graceful_shutdown=_LAST_ANSWERS_SECONDS,
        backlog=_ACCEPTED_AT_ONCE,
    )


def bind(host: str, port: int) -> socket.socket:
    """A socket at the address. Raises `UsageError`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"{where}: another program has this port; expected a free one; use --port, 0 chooses one"
            ) from error
        raise UsageError(f"{where}: cannot listen there: {error}; expected an address of this machine") from error
    return listener


def url_of(host: str, listener: socket.socket) -> str:
    """The address that a listening socket has."""
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Loader:
    """Loads the model at the start and on SIGHUP, beside the requests."""

    def __init__(self, serving: Serving, state: State, url: str) -> None:
        self._serving, self._state, self._url = serving, state, url
        self._task: asyncio.Task[None] | None = None

    async def first(self) -> None:
        """The model of the start. Raises what is wrong with it."""
        served = await asyncio.to_thread(self._serving.load)
        gc.freeze()  # what stays for good need not be looked at again with every collection
        self._state.served = served
        if not self._state.draining:
            self._serving.tell(self._url, served)

    def reload(self) -> None:
        """Begins to take the model from its folder anew; requests that are there already keep the one they have."""
        if self._state.served is not None and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._again())

    async def _again(self) -> None:
        assert self._state.served is not None
        try:
            served = await asyncio.to_thread(self._serving.load)
        except ManyheadError as error:
            self._state.metrics.count("failed_reloads")
            log.error("the model was not reloaded, the one before goes on: %s", error)
        except Exception:
            self._state.metrics.count("failed_reloads")
            log.exception("the model was not reloaded, the one before goes on")
        else:
            before, self._state.served = self._state.served.model_id, served
            self._state.metrics.count("reloads")
            log.info("reloaded: model %s in place of %s", served.model_id[:12], before[:12])


class _Ending:
    """The first signal lets nothing new in and waits for what was accepted; the second ends at once."""

    def __init__(self, server: uvicorn.Server, state: State) -> None:
        self._server, self._state = server, state
        self._began = asyncio.Event()
        self._signal: int | None = None
        self.left_over: int | None = None

    def begin(self, number: int) -> None:
        """Handles a signal."""
        if self._state.draining:
            self._give_up()
        self._state.draining = True
        self._signal = number
        self._began.set()

    async def wait(self) -> None:
        """Ends the server once it may."""
        await self._began.wait()
        log.info("ending: %d requests are being answered, no new ones are taken", self._state.requests)
        try:
            async with asyncio.timeout(self._state.limits.drain_seconds):
                while self._state.requests and not self._server.force_exit:
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            self._give_up()
        self._server.should_exit = True

    def _give_up(self) -> None:
        self.left_over = self._signal
        self._server.force_exit = True
        self._server.should_exit = True
