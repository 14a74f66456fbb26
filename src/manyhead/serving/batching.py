"""The queue of requests, and the one worker that runs the model for all of them together.

A batch takes rows from the waiting requests in turn, a share from each, until it has its tokens: many small requests
of any tasks go together, and a large one is cut into pieces that leave room for the others. While a batch runs the next
ones gather; only right after one does the worker wait a little for those whom it has just answered.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from manyhead.inference.mixed import Encoded, MixedReader, Question, Reply, Row, Way
from manyhead.serving.limits import Limits
from manyhead.serving.metrics import Metrics
from manyhead.serving.refusals import Refusal, too_slow
from manyhead.serving.served import Served

log = logging.getLogger(__name__)

CHARS_PER_TOKEN = 4
"""About; batches are made before texts are tokenised."""
LONG_CHARS = 1 << 14
"""A longer text is cut beside the queue, since that alone can take a second."""

_CHARS_HELD = 256
"""Characters that take the place of a token in the queue, for the memory that long texts need until they are cut."""
_TARGET_SECONDS = 0.1
"""A batch should take no longer: everybody waits for it."""
_LEAST_TOKENS = 512
"""Smaller batches waste the hardware."""
_PATIENCE = 0.1
"""Part of the last batch's time that the worker waits for more."""
_LONGEST_WAIT_SECONDS = 0.01


@dataclass
class Work:
    """One request in the queue, for the model ``served``. Times are of `time.monotonic`."""

    served: Served
    question: Question
    deadline: float
    place: "Place"
    costs: list[int] = field(default_factory=list[int])
    arrived: float = field(default_factory=time.monotonic)
    started: float | None = None
    model_seconds: float = 0.0
    encoded: list[dict[Way, Encoded]] = field(default_factory=list[dict[Way, Encoded]])
    taken: int = 0
    gone: bool = False
    future: "asyncio.Future[Reply]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def queue_seconds(self) -> float:
        """How long it waited for the model to begin."""
        return (self.started or time.monotonic()) - self.arrived


@dataclass(frozen=True)
class Piece:
    """The rows ``start`` to ``stop`` of a request: what one batch takes of it."""

    work: Work
    start: int
    stop: int

    @property
    def tokens(self) -> int:
        """About."""
        return sum(self.work.costs[self.start : self.stop])

    @property
    def question(self) -> Question:
        """What to ask the model."""
        whole = self.work.question
        return replace(whole, rows=whole.rows[self.start : self.stop])


class Place:
    """What a request takes of the queue, in tokens: first a guess, then what its texts need, 0 at its end."""

    def __init__(self, batcher: "Batcher", tokens: int) -> None:
        self._batcher = batcher
        self._tokens = 0
        self.settle(tokens)

    def settle(self, tokens: int) -> None:
        """Takes ``tokens`` in place of what it had."""
        self._batcher.tokens += tokens - self._tokens
        self._tokens = tokens


class Batcher:
    """Takes requests by `answer` and runs them in batches in a thread of its own, until `close`."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._waiting: deque[Work] = deque()
        self._closed = False
        self.tokens = 0
        """Waiting or running, about."""
        self.tokens_per_second: float | None = None
        self._ended, self._ran_seconds, self._ran_works = 0.0, 0.0, 0
        self._cutting = ThreadPoolExecutor(1, "manyhead-long-texts")
        self._thread = threading.Thread(target=self._run, name="manyhead-model", daemon=True)
        self._thread.start()

    def wait_seconds(self) -> float:
        """How long what is queued will take, about."""
        return self.tokens / self.tokens_per_second if self.tokens_per_second else 0.0

    def is_full(self, tokens: int) -> bool:
        """Whether a request of about ``tokens`` has no place. An empty queue takes any."""
        if not self.tokens:
            return False
        too_long = self.wait_seconds() > self._limits.timeout_seconds / 2
        return self.tokens + tokens > self._limits.queue_tokens or too_long

    async def answer(self, work: Work) -> Reply:
        """What the model says to ``work``. Raises `Refusal` where its time is over."""
        most = work.served.model.recipe.encoder.max_tokens
        work.costs = [cost_of(row, most) for row in work.question.rows]
        lengths = [len(text) for row in work.question.rows for text in row]
        work.place.settle(sum(work.costs) + sum(lengths) // _CHARS_HELD)
        try:
            async with asyncio.timeout_at(self._loop.time() + work.deadline - time.monotonic()):
                if max(lengths) > LONG_CHARS:
                    rows = await self._loop.run_in_executor(self._cutting, work.served.cut, work.question.rows)
                    work.question = replace(work.question, rows=rows)
                with self._changed:
                    self._waiting.append(work)
                    self._changed.notify()
                reply = await work.future
        except TimeoutError:
            self._metrics.count("expired")
            raise too_slow() from None
        except asyncio.CancelledError:
            self._metrics.count("cancelled")
            raise
        finally:
            work.gone = True
        self._metrics.waited(work.queue_seconds)
        return reply

    def close(self) -> None:
        """Ends the worker behind its batch. By now nobody waits for what is queued."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join()
        self._cutting.shutdown()

    def _run(self) -> None:
        while (pieces := self._take()) is not None:
            by_model: dict[int, list[Piece]] = {}
            for piece in pieces:  # two models at once only while one takes the other's place
                by_model.setdefault(id(piece.work.served), []).append(piece)
            for some in by_model.values():
                self._answer(some)

    def _take(self) -> list[Piece] | None:
        """The next batch, once there is one; None at the end."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            patience = min(_LONGEST_WAIT_SECONDS, _PATIENCE * self._ran_seconds)
            until = self._ended + patience
            while len(self._waiting) < self._ran_works and (rest := until - time.monotonic()) > 0:
                self._changed.wait(rest)
            return take(self._waiting, self._budget())

    def _budget(self) -> int:
        """Tokens of a batch."""
        most = self._limits.batch_tokens
        if self.tokens_per_second is None:
            return min(_LEAST_TOKENS, most)
        return min(max(_LEAST_TOKENS, int(self.tokens_per_second * _TARGET_SECONDS)), most)

    def _answer(self, pieces: Sequence[Piece]) -> None:
        """Encodes the pieces, and answers the requests that end with them."""
        began = time.monotonic()
        reader = pieces[0].work.served.reader
        answers: list[tuple[Work, Reply | Refusal]] = []
        for piece, found in zip(pieces, encode(reader, pieces), strict=True):
            work = piece.work
            if found is None:
                work.gone = True
                answers.append((work, broken()))
                continue
            work.encoded.append(found)
            if piece.stop == len(work.costs) and not work.gone:
                answers.append((work, reply_to(reader, work)))
        self._ended = time.monotonic()
        seconds = self._ended - began
        tokens = sum(piece.tokens for piece in pieces)
        self._ran_seconds, self._ran_works = seconds, len(pieces)
        rate = tokens / max(seconds, 1e-6)
        before = self.tokens_per_second
        self.tokens_per_second = rate if before is None else before + (rate - before) * 0.2
        self._metrics.ran(sum(piece.stop - piece.start for piece in pieces), tokens, seconds)
        for piece in pieces:
            piece.work.started = piece.work.started or began
            piece.work.model_seconds += seconds
        self._loop.call_soon_threadsafe(_deliver, answers)


def encode(reader: MixedReader, pieces: Sequence[Piece]) -> list[dict[Way, Encoded] | None]:
    """The pieces, encoded together; where that fails each by itself, and None for those that fail alone too."""
    try:
        return [*reader.encode([piece.question for piece in pieces])]
    except Exception:
        if len(pieces) == 1:
            log.exception("a request could not be encoded")
            return [None]
        return [found for piece in pieces for found in encode(reader, [piece])]


def reply_to(reader: MixedReader, work: Work) -> Reply | Refusal:
    """What the heads say to a request that has been encoded."""
    try:
        return reader.reply(work.question, work.encoded)
    except Exception:
        log.exception("a request could not be answered")
        return broken()


def broken() -> Refusal:
    """The model failed on the request."""
    return Refusal(500, "internal", "the model failed; the server's log says why")


def take(waiting: deque[Work], budget: int) -> list[Piece]:
    """Pieces of about ``budget`` tokens, at least one row, from the requests in turn; what is left of them stays.

    Requests that nobody waits for any more are dropped.
    """
    share = max(1, budget // 8)
    taken: dict[int, Piece] = {}
    while waiting and budget > 0:
        work = waiting.popleft()
        if work.gone or work.deadline < time.monotonic():
            continue
        start, tokens = work.taken, 0
        while work.taken < len(work.costs) and tokens < min(share, budget):
            tokens += work.costs[work.taken]
            work.taken += 1
        budget -= tokens
        before = taken.get(id(work))
        taken[id(work)] = Piece(work, start if before is None else before.start, work.taken)
        if work.taken < len(work.costs):
            waiting.append(work)
    return list(taken.values())


def cost_of(row: Row, max_tokens: int) -> int:
    """Tokens of a row, about."""
    return min(sum(len(text) for text in row) // CHARS_PER_TOKEN + 3, max_tokens)


def _deliver(answers: Sequence[tuple[Work, Reply | Refusal]]) -> None:
    for work, answer in answers:
        if work.future.done():
            continue
        if isinstance(answer, Refusal):
            work.gone = True
            work.future.set_exception(answer)
        else:
            work.future.set_result(answer)
