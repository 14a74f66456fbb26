"""Every error is JSON of ours. The framework's own answers repeat the input, and some inputs break them."""

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from manyhead.serving.refusals import Refusal

log = logging.getLogger(__name__)


def add_handlers(app: FastAPI) -> None:
    """Makes each kind of error a `Refusal`'s answer."""

    async def refused(request: Request, error: Exception) -> Response:
        del request
        assert isinstance(error, Refusal)
        return error.response()

    async def unknown(request: Request, error: Exception) -> Response:
        del request
        assert isinstance(error, HTTPException)
        code, message = _HTTP.get(error.status_code, ("http", "the request cannot be answered"))
        return Refusal(error.status_code, code, message, error.headers).response()

    async def invalid(request: Request, error: Exception) -> Response:
        del request
        assert isinstance(error, RequestValidationError)
        return Refusal(422, "invalid", "a parameter is missing or not as expected; see /openapi.json").response()

    async def failed(request: Request, error: Exception) -> Response:
        del request
        log.error("a request failed", exc_info=error)
        return Refusal(500, "internal", "the server failed; its log says why").response()

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(HTTPException, unknown)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, failed)


_HTTP = {
    404: ("not_found", "no such path; /openapi.json lists them"),
    405: ("method", "this path takes another method; the header Allow names it"),
}
