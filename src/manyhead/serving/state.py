"""`State`: what the parts of one server share."""

from dataclasses import dataclass, field

from manyhead.serving.auth import Guard
from manyhead.serving.batching import Batcher
from manyhead.serving.limits import Limits
from manyhead.serving.metrics import Metrics
from manyhead.serving.served import Served


@dataclass
class State:
    """``served`` is None while the first model is loading; ``requests`` are those that are being answered."""

    limits: Limits
    guard: Guard
    metrics: Metrics
    batcher: Batcher
    served: Served | None = None
    draining: bool = False
    requests: int = field(default=0)

    @property
    def busy_with(self) -> str | None:
        """Why no work is taken at the moment, None when it is."""
        return "ending" if self.draining else "loading its model" if self.served is None else None
