"""What questions answer with, and how they are asked: one that fails, or has no time left, costs its own rows only."""

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from gpu_cases.work import Bench


@dataclass(frozen=True)
class Answer:
    """A row of the table: ``value`` with its unit, the ``goal`` where there is one, and a ``note``."""

    what: str
    value: str
    goal: str = ""
    note: str = ""


Question = Callable[[Bench], Iterable[Answer]]
"""Measures something; what it has found when it fails is kept."""


class NotHereError(Exception):
    """The device cannot answer this."""


FAILED = "FAILED"


def ask(name: str, question: Question, bench: Bench, *, until: float) -> list[Answer]:
    """The answers; one that says why where there are none."""
    if time.perf_counter() > until:
        return [Answer(name, "not asked", note="no time left")]
    began = time.perf_counter()
    found: list[Answer] = []
    try:
        for answer in question(bench):
            found.append(answer)
            print(f"    {answer.what}: {answer.value} {answer.goal} {answer.note}", flush=True)
    except NotHereError as error:
        return [Answer(name, "not here", note=str(error))]
    except Exception as error:  # whatever it is, the other questions are still to be asked
        traceback.print_exc()
        said = str(error).splitlines()
        found.append(Answer(name, FAILED, note=f"{type(error).__name__}: {said[0][:160] if said else ''}"))
    print(f"[{time.perf_counter() - began:6.1f} s] {name}", flush=True)
    return found


def needs_cuda(bench: Bench) -> None:
    """Raises `NotHereError` elsewhere."""
    if not bench.is_cuda:
        raise NotHereError("needs CUDA")


def table(answers: list[Answer]) -> str:
    """The answers as a Markdown table."""
    lines = ["| what | value | goal | note |", "|---|---|---|---|"]
    for answer in answers:
        cells = (each.replace("|", "/") for each in asdict(answer).values())
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def as_json(answers: list[Answer]) -> list[dict[str, Any]]:
    """The answers for a file."""
    return [asdict(answer) for answer in answers]
