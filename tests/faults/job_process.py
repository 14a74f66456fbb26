"""A script of ours that does jobs in a process of its own: a line of JSON to it, a line of JSON back."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Self


class JobProcess:
    """Starts the script; use it as a context."""

    def __init__(self, script: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Gives it a job, and waits for what it says of that."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())
