"""What `growth.py` measures: a setting of rows, lengths, tasks and batch, and the process that takes its steps."""

from dataclasses import asdict, dataclass
from typing import Any

MOST_TASKS = 10


@dataclass(frozen=True)
class Setting:
    """A stage: ``tasks`` with ``rows`` each, of which ``batch`` are in a step.

    Texts have ``tokens``; None: as many as short texts have, 29 on average.
    """

    tasks: int = 3
    batch: int = 8
    rows: int = 10_000
    tokens: int | None = None
    length_window: int = 0
    balancing: str = "sum"

    def request(self) -> dict[str, Any]:
        """For a worker."""
        return asdict(self)
