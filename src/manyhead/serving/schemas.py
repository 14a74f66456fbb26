"""Bodies of requests and answers, as checked here and as described in ``/openapi.json``."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from manyhead.data.table import without_surrogates


def _whole(value: object) -> object:
    """Half surrogate pairs, which no text can hold, are replaced, as everywhere."""
    return without_surrogates(value)[0] if isinstance(value, str) else value


Text = Annotated[str, Field(strict=True), BeforeValidator(_whole)]
Pair = Annotated[list[Text], Field(min_length=2, max_length=2)]
Rows = list[Text] | list[Pair]


class Body(BaseModel):
    """A request's body: other keys are refused, and a number is no text."""

    model_config = ConfigDict(extra="forbid")


class TaskBody(Body):
    """What one task predicts."""

    texts: Rows = Field(description="Texts, or pairs of texts where the task reads two.")


class PredictBody(TaskBody):
    """What several tasks predict from one encoding."""

    tasks: list[Text] | None = Field(default=None, description="Names of tasks; left out: all that read such texts.")


class EmbedBody(Body):
    """Vectors of texts."""

    texts: list[Text] = Field(description="Single texts.")
    task: Text | None = Field(default=None, description="Whose vectors, for a model whose tasks have experts.")


class Timing(BaseModel):
    """Where the time went, in milliseconds: waiting for the model, inside it, and all together."""

    queue_ms: float
    model_ms: float
    total_ms: float


class Prediction(BaseModel):
    """One prediction. ``value`` is what the target column would hold; ``truncated``: the text was cut."""

    value: str | int | float | bool
    label: str | None
    probabilities: dict[str, float] | None
    score: float | None
    truncated: bool


class TaskAnswer(BaseModel):
    """The predictions of one task, in the order of the texts."""

    task: str
    predictions: list[Prediction]
    timing: Timing


class PredictAnswer(BaseModel):
    """The predictions by task."""

    predictions: dict[str, list[Prediction]]
    timing: Timing


class EmbedAnswer(BaseModel):
    """One vector a text."""

    embeddings: list[list[float]]
    truncated: list[bool]
    timing: Timing


class TaskFacts(BaseModel):
    """A task of the model. ``score`` of ``metric`` on the dev rows and its interval, where a run is served."""

    name: str
    kind: str
    texts: list[str]
    labels: list[str] | None
    range: list[float] | None
    metric: str
    score: float | None
    interval: list[float] | None


class LimitFacts(BaseModel):
    """What one request can hold."""

    max_texts: int
    max_bytes: int


class TasksAnswer(BaseModel):
    """The model that answers. ``model_id`` changes with its files.

    ``embeds_by_task``: each task has vectors of its own, so ``/v1/embed`` needs to be told which.
    """

    name: str
    model_id: str
    tasks: list[TaskFacts]
    max_tokens: int
    limits: LimitFacts
    embeds_by_task: bool


class Example(BaseModel):
    """A dev row: its texts, and the label or score that it has."""

    texts: list[str]
    target: str | int | float | bool


class ExamplesAnswer(BaseModel):
    """The first dev rows."""

    examples: list[Example]


class StatusAnswer(BaseModel):
    """How the server is."""

    status: str


class ErrorFacts(BaseModel):
    """``code`` is for programs, ``message`` for people."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """Why there is no other answer."""

    error: ErrorFacts


_ERRORS = {
    400: "Not JSON, or a header that cannot be read.",
    401: "The token is missing or wrong.",
    404: "No such path or task.",
    405: "Another method is expected.",
    408: "The body did not come in time.",
    413: "The body, or the number of texts, is over the limit.",
    415: "The body is not declared as JSON.",
    422: "JSON, but not what this path takes.",
    429: "The queue is full; Retry-After says when to come again.",
    503: "The model is loading, or the server is ending.",
    504: "No answer within the timeout.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers beside a route's own that its description lists."""
    return {status: {"model": ErrorAnswer, "description": _ERRORS[status]} for status in statuses}


WORK_ERRORS = errors(*_ERRORS)
"""Of routes that run the model."""
READ_ERRORS = errors(401, 404, 405, 503)
"""Of routes that only tell."""
