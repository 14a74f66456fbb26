"""The routes, their answers, and the description of both."""

import asyncio
import json
import math
import time
from importlib import metadata
from typing import Any

from fastapi import FastAPI, Request, Response

from manyhead.inference.mixed import Question, Reply, Row
from manyhead.serving.batching import Place, Work
from manyhead.serving.bodies import read_body
from manyhead.serving.gate import PLACE, Gate
from manyhead.serving.handlers import add_handlers
from manyhead.serving.metrics import CONTENT_TYPE
from manyhead.serving.page_routes import add_page
from manyhead.serving.refusals import JSON_HEADERS, Refusal, not_ready
from manyhead.serving.schemas import (
    READ_ERRORS,
    WORK_ERRORS,
    Body,
    EmbedAnswer,
    EmbedBody,
    ExamplesAnswer,
    PredictAnswer,
    PredictBody,
    StatusAnswer,
    TaskAnswer,
    TaskBody,
    TasksAnswer,
    errors,
)
from manyhead.serving.served import Served, readable
from manyhead.serving.state import State

_TIMEOUT = {
    "name": "timeout",
    "in": "header",
    "required": False,
    "description": "Seconds after which the answer is of no use any more.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}


def make_app(state: State) -> Gate:
    """The application of a server."""
    app = FastAPI(
        title="manyhead", version=metadata.version("manyhead"), docs_url=None, redoc_url=None, redirect_slashes=False
    )
    add_handlers(app)
    _add_work(app, state)
    _add_facts(app, state)
    add_page(app)
    return Gate(app, state)


def _add_work(app: FastAPI, state: State) -> None:
    @app.post("/v1/predict/{task}", **_work(TaskBody, TaskAnswer))
    async def predict_task(task: str, request: Request) -> Response:
        """What one task predicts."""
        served, began = _served(state), time.monotonic()
        declared = served.tasks.get(task)
        if declared is None:
            raise _no_task(served)
        body = await read_body(request, TaskBody, state)
        rows = _rows(body.texts)
        width = len(declared.text)
        if rows and len(rows[0]) != width:
            raise Refusal(422, "width", f"this task reads {_texts(width)} at once; send {_shape(width)}")
        work, reply = await _answer(state, request, served, Question(rows, (task,)), began)
        answers = _predictions(served, reply, (task,))
        return _json({"task": task, "predictions": answers[task], "timing": _timing(work, began)})

    @app.post("/v1/predict", **_work(PredictBody, PredictAnswer))
    async def predict(request: Request) -> Response:
        """What several tasks predict, from one encoding of each text; all tasks that read such texts by default."""
        served, began = _served(state), time.monotonic()
        body = await read_body(request, PredictBody, state)
        rows = _rows(body.texts)
        tasks = _tasks(served, None if body.tasks is None else tuple(body.tasks), rows)
        work, reply = await _answer(state, request, served, Question(rows, tasks), began)
        return _json({"predictions": _predictions(served, reply, tasks), "timing": _timing(work, began)})

    @app.post("/v1/embed", **_work(EmbedBody, EmbedAnswer))
    async def embed(request: Request) -> Response:
        """The vector of each text, as the heads read it."""
        served, began = _served(state), time.monotonic()
        body = await read_body(request, EmbedBody, state)
        if body.task is not None and body.task not in served.tasks:
            raise _no_task(served, 422)
        if body.task is None and served.model.network.routed:
            raise Refusal(422, "no_task", f"this model's tasks have vectors of their own: expected {_named(served)}")
        question = Question([(text,) for text in body.texts], vectors_of=body.task or "")
        work, reply = await _answer(state, request, served, question, began)
        vectors = [] if reply is None or reply.vectors is None else reply.vectors
        cut = [] if reply is None else reply.truncated[""].tolist()
        # Digits of many numbers take long; in a thread, row by row, they keep nobody waiting.
        rows = await asyncio.to_thread(lambda: [json.dumps(row.tolist(), allow_nan=False) for row in vectors])
        rest = json.dumps({"truncated": cut, "timing": _timing(work, began)})
        return _json_text(f'{{"embeddings": [{", ".join(rows)}], {rest[1:]}')


def _add_facts(app: FastAPI, state: State) -> None:
    @app.get("/v1/tasks", responses=_responses(TasksAnswer, READ_ERRORS), response_class=Response)
    async def tasks() -> Response:
        """The model and its tasks."""
        served = _served(state)
        recipe = served.model.recipe
        limits = {"max_texts": state.limits.max_texts, "max_bytes": state.limits.max_bytes}
        found = {"name": recipe.name, "model_id": served.model_id, "tasks": served.facts}
        routed = bool(served.model.network.routed)
        facts = {"max_tokens": recipe.encoder.max_tokens, "limits": limits, "embeds_by_task": routed}
        return _json({**found, **facts})

    @app.get(
        "/v1/examples",
        responses=_responses(ExamplesAnswer, {**READ_ERRORS, **errors(422)}),
        response_class=Response,
    )
    async def examples(task: str) -> Response:
        """Dev rows of a task; none where a model without its run is served."""
        served = _served(state)
        if task not in served.tasks:
            raise _no_task(served)
        return _json({"examples": served.examples[task]})

    @app.get("/health", responses=_responses(StatusAnswer, errors(405)), response_class=Response)
    async def health() -> Response:
        """Whether the server runs."""
        return _json({"status": "ok"})

    @app.get("/ready", responses=_responses(StatusAnswer, errors(405, 503)), response_class=Response)
    async def ready() -> Response:
        """Whether it takes requests."""
        if state.busy_with is not None:
            raise not_ready(state.busy_with)
        return _json({"status": "ready"})

    @app.get("/metrics", responses={401: errors(401)[401], 405: errors(405)[405]}, response_class=Response)
    async def metrics() -> Response:
        """Counters, for Prometheus."""
        gauges = {
            "queue_tokens": float(state.batcher.tokens),
            "requests": float(state.requests),
            "ready": float(state.busy_with is None),
            "tokens_per_second": state.batcher.tokens_per_second or 0.0,
        }
        return Response(state.metrics.text(gauges), media_type=CONTENT_TYPE)


def _responses(answer: Any, others: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": answer, "description": "The answer."}, **others}


def _work(body: type[Body], answer: type) -> dict[str, Any]:
    """How a route that runs the model is described; it reads its body itself."""
    content = {"application/json": {"schema": body.model_json_schema()}}
    return {
        "responses": _responses(answer, WORK_ERRORS),
        "response_class": Response,
        "openapi_extra": {"requestBody": {"required": True, "content": content}, "parameters": [_TIMEOUT]},
    }


def _served(state: State) -> Served:
    if state.served is None:
        raise not_ready("loading its model")
    return state.served


async def _answer(
    state: State, request: Request, served: Served, question: Question, began: float
) -> tuple[Work | None, Reply | None]:
    """The model's reply, both None where nothing is asked. Raises `Refusal`; is given up when the client leaves."""
    deadline = began + _timeout(state, request)
    if not question.rows or not (question.tasks or question.vectors_of is not None):
        return None, None
    place: Place = request.scope[PLACE]
    work = Work(served, question, deadline, place)
    answer = asyncio.ensure_future(state.batcher.answer(work))
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((answer, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise Refusal(499, "left", "the client left")
        return work, answer.result()
    finally:
        leaving.cancel()
        answer.cancel()


def _timeout(state: State, request: Request) -> float:
    """Seconds that the request has. Raises `Refusal`."""
    given = request.headers.get("timeout")
    if given is None:
        return state.limits.timeout_seconds
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise Refusal(400, "timeout", "the header timeout cannot be read; expected seconds, such as 2.5")
    return min(seconds, state.limits.max_timeout_seconds)


def _rows(texts: list[str] | list[list[str]]) -> list[Row]:
    return [(each,) if isinstance(each, str) else tuple(each) for each in texts]


def _tasks(served: Served, named: tuple[str, ...] | None, rows: list[Row]) -> tuple[str, ...]:
    """The tasks that are asked. Raises `Refusal`."""
    if named is not None and any(name not in served.tasks for name in named):
        raise _no_task(served, 422)
    if not rows:
        return tuple(served.tasks) if named is None else tuple(dict.fromkeys(named))
    width = len(rows[0])
    fitting = served.fitting(width)
    if named is None:
        if not fitting:
            raise Refusal(422, "width", f"no task reads {_texts(width)} at once; send {_shape(3 - width)}")
        return fitting
    others = [name for name in dict.fromkeys(named) if name not in fitting]
    if others:
        other = len(served.tasks[others[0]].text)
        raise Refusal(422, "width", f"{', '.join(others)}: reads {_texts(other)} at once; send {_shape(other)}")
    return tuple(dict.fromkeys(named))


def _no_task(served: Served, status: int = 404) -> Refusal:
    return Refusal(status, "unknown_task", f"no such task: expected {_named(served)}")


def _named(served: Served) -> str:
    return f"one of {', '.join(served.tasks)}"


def _texts(width: int) -> str:
    return "one text" if width == 1 else "a pair of texts"


def _shape(width: int) -> str:
    return '{"texts": ["text", ...]}' if width == 1 else '{"texts": [["text", "text"], ...]}'


def _predictions(served: Served, reply: Reply | None, tasks: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    if reply is None:
        return {name: [] for name in tasks}
    found: dict[str, list[dict[str, Any]]] = {}
    for name in tasks:
        each = reply.predictions[name]
        rows = None if each.probabilities is None else each.probabilities.tolist()
        found[name] = readable(served.tasks[name], each.values.tolist(), rows, reply.truncated[name].tolist())
    return found


def _timing(work: Work | None, began: float) -> dict[str, float]:
    queue, model = (0.0, 0.0) if work is None else (work.queue_seconds, work.model_seconds)
    times = {"queue_ms": queue, "model_ms": model, "total_ms": time.monotonic() - began}
    return {name: round(seconds * 1000, 3) for name, seconds in times.items()}


def _json(value: Any) -> Response:
    return _json_text(json.dumps(value, allow_nan=False))


def _json_text(text: str) -> Response:
    return Response(text, headers=JSON_HEADERS, media_type="application/json")
