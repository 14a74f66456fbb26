"""`State`: what the parts of one server share."""

import math
from dataclasses import dataclass

from manyhead.serving.auth import Guard
from manyhead.serving.batching import Batcher
from manyhead.serving.limits import Limits
from manyhead.serving.metrics import Metrics
from manyhead.serving.refusals import Refusal
from manyhead.serving.served import Served


@dataclass
class State:
    """``served`` is None while the first model is loading.

    ``requests`` are those that are being answered, ``body_bytes`` what has come of bodies that are not whole yet.
    """

    limits: Limits
    guard: Guard
    metrics: Metrics
    batcher: Batcher
    served: Served | None = None
    draining: bool = False
    requests: int = 0
    body_bytes: int = 0

    @property
    def busy_with(self) -> str | None:
        """Why no work is taken at the moment, None when it is."""
        return "ending" if self.draining else "loading its model" if self.served is None else None

    def full(self) -> Refusal:
        """What a request gets that has no place."""
        seconds = max(1, math.ceil(self.batcher.wait_seconds() / 2))
        return Refusal(429, "busy", "too much is waiting; try again later", {"Retry-After": str(seconds)})
