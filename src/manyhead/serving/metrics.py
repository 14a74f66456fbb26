"""Counters of the server, in the text format of Prometheus."""

from collections import Counter
from collections.abc import Iterator
from threading import Lock

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """How many values were at most each bound, their number and their sum."""

    def __init__(self) -> None:
        self._counts = [0] * len(_SECONDS)
        self._number = 0
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Counts a value."""
        self._number += 1
        self._sum += value
        for place, bound in enumerate(_SECONDS):
            if value <= bound:
                self._counts[place] += 1

    def lines(self, name: str) -> Iterator[str]:
        """The samples of the histogram ``name``."""
        for bound, count in zip(_SECONDS, self._counts, strict=True):
            yield f'{name}_bucket{{le="{bound:g}"}} {count}'
        yield f'{name}_bucket{{le="+Inf"}} {self._number}'
        yield f"{name}_sum {self._sum!r}"
        yield f"{name}_count {self._number}"


class Metrics:
    """What is counted; any thread may count."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._answers: Counter[tuple[str, int]] = Counter()
        self._totals: Counter[str] = Counter()
        self._seconds = {name: Histogram() for name in ("request", "queue", "model")}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """An answer was sent."""
        with self._lock:
            self._answers[route, status] += 1
            self._seconds["request"].add(seconds)

    def ran(self, texts: int, tokens: int, seconds: float) -> None:
        """The model ran a batch."""
        with self._lock:
            self._totals["batches"] += 1
            self._totals["texts"] += texts
            self._totals["tokens"] += tokens
            self._seconds["model"].add(seconds)

    def waited(self, seconds: float) -> None:
        """A request came to the model after waiting."""
        with self._lock:
            self._seconds["queue"].add(seconds)

    def count(self, name: str) -> None:
        """One more of ``name``: cancelled, expired, dropped_connections, reloads, failed_reloads."""
        with self._lock:
            self._totals[name] += 1

    def text(self, gauges: dict[str, float]) -> str:
        """Everything, and the ``gauges`` of the moment."""
        with self._lock:
            lines: list[str] = ["# TYPE manyhead_answers_total counter"]
            lines += [
                f'manyhead_answers_total{{route="{route}",status="{status}"}} {number}'
                for (route, status), number in sorted(self._answers.items())
            ]
            for name in _TOTALS:
                lines += [f"# TYPE manyhead_{name}_total counter", f"manyhead_{name}_total {self._totals[name]}"]
            for name, value in gauges.items():
                lines += [f"# TYPE manyhead_{name} gauge", f"manyhead_{name} {value:g}"]
            for name, histogram in self._seconds.items():
                lines.append(f"# TYPE manyhead_{name}_seconds histogram")
                lines += histogram.lines(f"manyhead_{name}_seconds")
        return "\n".join(lines) + "\n"


_TOTALS = (
    "batches",
    "texts",
    "tokens",
    "cancelled",
    "expired",
    "dropped_connections",
    "reloads",
    "failed_reloads",
)
