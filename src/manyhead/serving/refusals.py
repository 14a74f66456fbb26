"""`Refusal`: an answer that is an error, as JSON that any client can read."""

import json
from collections.abc import Mapping

from starlette.responses import Response

JSON_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
"""Of every answer that is JSON."""


class Refusal(Exception):  # noqa: N818, an answer like others
    """Ends a request with ``status``. The message never repeats what the client sent."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The answer: ``{"error": {"code": ..., "message": ...}}`` in ASCII."""
        return Response(
            json.dumps({"error": {"code": self.code, "message": self.message}}),
            self.status,
            {**JSON_HEADERS, **self.headers},
            "application/json",
        )


def too_slow() -> Refusal:
    """The deadline passed."""
    return Refusal(504, "deadline", "no answer within the request's timeout; send less at once, or allow more time")


def not_ready(what: str) -> Refusal:
    """The server takes no work at the moment."""
    return Refusal(503, "not_ready", f"the server is {what}; try again later", {"Retry-After": "5"})


def too_large(max_bytes: int) -> Refusal:
    """The body is over the limit."""
    return Refusal(413, "too_large", f"the body is too large; expected at most {max_bytes} bytes")
