"""Writing beside training: one job at a time, in order, on a thread of its own."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self


class Writer:
    """Runs jobs in the background. An error of one is raised where the next is given, or where it is waited for."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Waits for the last job, also after an error, which then hides the job's own."""
        try:
            self.wait()
        except Exception:
            if error is None:
                raise
        finally:
            self._executor.shutdown()

    def write(self, job: Callable[[], None]) -> None:
        """Starts ``job`` when the one before is done: it may use nothing that training changes."""
        self.wait()
        self._pending = self._executor.submit(job)

    def wait(self) -> None:
        """Returns when all jobs are done."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
