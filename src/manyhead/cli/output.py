"""Saying things: results on stdout, as text or as one JSON document; everything else on stderr."""

import json
import logging
import math
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO, cast

from manyhead.errors import WriteError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_PIPE_WIDTH = 200
"""Columns for tables where stdout is no terminal: lines of any length are no trouble there."""


class Output:
    """Where a verb says what it found. Make one with `speaking`."""

    def __init__(self, stdout: TextIO, *, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._stdout = stdout

    def note(self, *lines: str) -> None:
        """Lines beside the result, on stderr."""
        if not self.quiet:
            for line in lines:
                print(line, file=sys.stderr)

    def error(self, *lines: object) -> None:
        """Lines about what went wrong, on stderr."""
        for line in lines:
            print(line, file=sys.stderr)

    def document(self, value: Mapping[str, Any]) -> None:
        """The JSON document of a verb called with ``--json``."""
        with written(self._stdout):
            print(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False), file=self._stdout)

    def show(self, *parts: "RenderableType") -> None:
        """Results for people: texts, printed as they are, and tables."""
        console = _console(self._stdout)
        with written(self._stdout):
            for part in parts:
                if isinstance(part, str):
                    print(part, file=self._stdout)
                else:
                    console.print(part)


@contextmanager
def speaking(*, as_json: bool, quiet: bool) -> Generator[Output]:
    """An `Output`, while log lines go to stderr and, with ``as_json``, whatever else is printed too."""
    logger, handler = logging.getLogger("manyhead"), _ToStderr()
    handler.setLevel(logging.ERROR if quiet else logging.INFO)
    level, stdout = logger.level, sys.stdout
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with redirect_stdout(sys.stderr if as_json else stdout):
            yield Output(stdout, as_json=as_json, quiet=quiet)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def written(stream: TextIO) -> Generator[None]:
    """Flushes ``stream`` after the block. Raises `WriteError` where it takes no more; a closed pipe stays one."""
    try:
        yield
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WriteError(f"the output could not be written: {error}") from error


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> "RenderableType":
    """A table of texts and numbers; the first ``left`` columns are words, the others are set to the right."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, name in enumerate(columns):
        found.add_column(Text(name), justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        found.add_row(*(Text(str(cell)) for cell in row))
    return found


def score(value: float | int | None) -> str:
    """A score with three decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def interval_ends(low: float | None, high: float | None) -> str:
    """Both ends of an interval of scores; a dash where there is none."""
    return "-" if low is None or high is None else f"{score(low)} to {score(high)}"


def duration(seconds: float) -> str:
    """Seconds as H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _finite(value: Any) -> Any:
    """``value`` with null for the numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in cast("Sequence[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, width=None if stream.isatty() else _PIPE_WIDTH)


class _ToStderr(logging.Handler):
    """Writes to whatever stderr is at the time, so that lines go above a live screen."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr)
