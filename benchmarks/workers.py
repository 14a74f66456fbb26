"""Processes that measure for another one: they are asked over pipes and wait, asleep, while others are asked.

A request is a JSON object on one line, and so is its answer.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CLOSING_SECONDS = 30


class Worker:
    """A process that runs a module of this folder, whose main calls `serve`. It ends with the ``with`` block.

    Raises RuntimeError where it ended before it answered; what it said stands in the error stream.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        try:
            self._process.communicate(timeout=CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tell(self, **request: Any) -> None:
        """Sends a request; `hear` has its answer."""
        assert self._process.stdin is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._ended() from None

    def hear(self) -> Any:
        """Waits for the answer to the oldest request that has none."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return json.loads(line)

    def ask(self, **request: Any) -> Any:
        """The answer to a request."""
        self.tell(**request)
        return self.hear()

    def _ended(self) -> RuntimeError:
        return RuntimeError(f"{' '.join(self._command)} ended, exit code {self._process.wait(CLOSING_SECONDS)}")


def serve(answer: Callable[[dict[str, Any]], Any]) -> None:
    """Answers requests until there are no more. What libraries print goes to the error stream."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
