"""What is decided of a request before its body is read: token, readiness, size, room in the queue."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manyhead.serving.batching import CHARS_PER_TOKEN, Place
from manyhead.serving.refusals import Refusal, not_ready, too_large
from manyhead.serving.state import State

PLACE = "manyhead.place"
"""Key of the request's scope with its `Place` in the queue."""

_ROUTES = (
    "/",
    "/health",
    "/ready",
    "/metrics",
    "/openapi.json",
    "/v1/tasks",
    "/v1/examples",
    "/v1/predict",
    "/v1/embed",
)
_PREDICT = "/v1/predict/"


class Gate:
    """The outermost application: refuses what has no place, and counts what is answered."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or passes on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, state = time.monotonic(), self._state
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        state.requests += 1
        try:
            await self._pass(scope, receive, counted)
        finally:
            state.requests -= 1
            if status:
                state.metrics.answered(_route(scope["path"]), status, time.monotonic() - began)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers: dict[bytes, bytes] = dict(scope["headers"])
            self._state.guard.check(scope["path"], headers)
            if not (scope["method"] == "POST" and _is_work(scope["path"])):
                await self._app(scope, receive, send)
                return
            place = self._admitted(headers)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)
            return
        scope[PLACE] = place
        try:
            await self._app(scope, receive, send)
        finally:
            place.settle(0)

    def _admitted(self, headers: dict[bytes, bytes]) -> Place:
        """The request's place in the queue. Raises `Refusal`."""
        state, limits = self._state, self._state.limits
        if state.busy_with is not None:
            raise not_ready(state.busy_with)
        size = int(headers.get(b"content-length", b"0"))
        if size > limits.max_bytes:
            raise too_large(limits.max_bytes)
        # Of a long text only the beginning will count, so that much is not asked of the queue for it.
        tokens = min(size // CHARS_PER_TOKEN, limits.queue_tokens // 4)
        if state.batcher.is_full(tokens):
            raise state.full()
        # No more than that it is there, until all of it has come: who sends slowly keeps nobody out.
        return Place(state.batcher, 1)


def _is_work(path: str) -> bool:
    return path in ("/v1/predict", "/v1/embed") or path.startswith(_PREDICT)


def _route(path: str) -> str:
    """A path as metrics name it; what clients make up has one name."""
    if path in _ROUTES:
        return path
    return f"{_PREDICT}{{task}}" if path.startswith(_PREDICT) else "other"
