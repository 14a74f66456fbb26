"""A request's body: read with a limit, strict JSON, checked. All that is wrong with one becomes a `Refusal`."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar, cast

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from manyhead.serving.limits import Limits
from manyhead.serving.refusals import Refusal, too_large
from manyhead.serving.schemas import Body
from manyhead.serving.state import State

B = TypeVar("B", bound=Body)

_KINDS = {
    "string_type": "expected text",
    "missing": "it is missing",
    "extra_forbidden": "no such key",
    "list_type": "expected a list",
    "model_type": "expected an object",
    "too_short": "expected two texts",
    "too_long": "expected two texts",
}


async def read_body(request: Request, kind: type[B], state: State) -> B:
    """The body as a ``kind``. Raises `Refusal`."""
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared != "application/json":
        raise Refusal(415, "content_type", "expected the header Content-Type: application/json")
    limits = state.limits
    try:
        async with asyncio.timeout(limits.body_seconds):
            body = await _bytes(request, state)
    except TimeoutError:
        raise Refusal(408, "slow", "the body did not come in time", {"Connection": "close"}) from None
    value = parse(body)
    _check_count(value, limits)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise Refusal(422, "invalid", _explain(error, kind)) from None


def parse(body: bytes) -> Any:
    """JSON as RFC 8259 has it, in UTF-8, without repeated keys. Half a surrogate pair is let through."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(400, "encoding", f"the body is not UTF-8 at byte {error.start}") from None
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_number)
    except RecursionError:
        raise Refusal(400, "json", "the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Refusal(400, "json", f"the body is not JSON at line {error.lineno}, column {error.colno}") from None
    except ValueError:  # an integer of more digits than Python converts
        raise Refusal(400, "json", "the body holds a number that is too long") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refusal(400, "json", "the body has an object with the same key twice")
    return found


def _no_constant(_: str) -> NoReturn:
    raise Refusal(400, "json", "the body holds NaN or Infinity, which JSON does not have")


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Refusal(400, "json", "the body holds a number that is too large")
    return value


async def _bytes(request: Request, state: State) -> bytes:
    """All of the body, however it comes. The gate has looked at its declared length; this counts what is sent."""
    chunks: list[bytes] = []
    total, limits = 0, state.limits
    try:
        async for chunk in request.stream():
            total += len(chunk)
            state.body_bytes += len(chunk)
            if total > limits.max_bytes:
                raise too_large(limits.max_bytes)
            if state.body_bytes > limits.bodies_bytes:
                raise state.full()
            chunks.append(chunk)
    except ClientDisconnect:
        raise Refusal(400, "incomplete", "the body ended early") from None
    finally:
        state.body_bytes -= total
    return b"".join(chunks)


def _check_count(value: object, limits: Limits) -> None:
    """Before each of the texts is looked at."""
    texts = cast("dict[str, object]", value).get("texts") if isinstance(value, dict) else None
    if isinstance(texts, list) and len(cast("list[object]", texts)) > limits.max_texts:
        message = f"too many texts; expected at most {limits.max_texts} in a request; send several requests"
        raise Refusal(413, "too_many_texts", message)


def _explain(error: ValidationError, kind: type[Body]) -> str:
    """The first problem in words of ours: what pydantic says may repeat what was sent."""
    known = set(kind.model_fields)
    found = error.errors(include_url=False, include_context=False, include_input=False)
    # Of a union each arm complains; the one that got furthest knows most.
    first = max(found, key=lambda each: len(each["loc"]))
    place = _place(first["loc"], known)
    says = _KINDS.get(first["type"], "not as expected")
    return f"{place}: {says}; send {{{', '.join(_shape(kind))}}}"


def _place(place: Sequence[int | str], known: set[str]) -> str:
    named = "body"
    for part in place:
        if isinstance(part, int):
            named += f"[{part}]"
        elif part in known:
            named = str(part)
    return named


def _shape(kind: type[Body]) -> list[str]:
    pairs = ' or [["text", "text"], ...]' if kind.model_fields["texts"].annotation != list[str] else ""
    shapes = {"texts": f'"texts": ["text", ...]{pairs}', "tasks": '"tasks": ["name", ...]', "task": '"task": "name"'}
    return [shapes[name] for name in kind.model_fields]
