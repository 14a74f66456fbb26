"""What the server takes on, and for how long."""

import resource
from dataclasses import dataclass

from manyhead.errors import UsageError

_SPARE_FILES = 64
"""Open files that are no connections: libraries, logs, a model that is being read."""


@dataclass(frozen=True)
class Limits:
    """Sizes and times.

    ``timeout_seconds`` is a request's when it names none, ``max_timeout_seconds`` the longest it can name.
    ``bodies_bytes`` may be in memory of bodies that are still coming, all together. ``header_seconds`` and
    ``body_seconds`` are for sending these, ``idle_seconds`` between two requests, ``drain_seconds`` for the last
    answers.
    """

    max_texts: int = 1024
    max_bytes: int = 4 << 20
    bodies_bytes: int = 256 << 20
    queue_tokens: int = 1 << 16
    batch_tokens: int = 4096
    timeout_seconds: float = 30.0
    max_timeout_seconds: float = 300.0
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    idle_seconds: float = 60.0
    drain_seconds: float = 30.0
    max_connections: int = 4096

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise UsageError(f"--{name.replace('_', '-')} is {value}; expected a number above 0")
        if self.timeout_seconds > self.max_timeout_seconds:
            raise UsageError(
                f"--timeout-seconds is {self.timeout_seconds:g}; expected at most {self.max_timeout_seconds:g}"
            )


def connections_allowed(wanted: int) -> int:
    """``wanted``, or as many as the system lets this process have; raises its soft limit of open files to the hard one.

    Beyond that limit, accepting would fail and new clients would hang.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - _SPARE_FILES))
