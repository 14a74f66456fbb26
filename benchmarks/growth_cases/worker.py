"""The process that takes steps: ``python -m growth_cases.worker [THREADS]``.

``{"setting": {...}, "steps": N}`` is answered with the seconds and tokens of the next N steps of that stage, and the
largest memory of the process so far.
"""

import sys
import time
from typing import Any

from memory import peak
from workers import serve

from growth_cases import Setting
from growth_cases.learners import Learners
from manyhead.training.step import take_step


def main() -> None:
    """Takes the steps it is asked to."""
    learners = Learners(int(sys.argv[1]))

    def answer(request: dict[str, Any]) -> dict[str, float]:
        stage = learners.stage(Setting(**request["setting"]))
        tokens = 0
        began = time.perf_counter()
        for _ in range(request["steps"]):
            tokens += take_step(stage.learner, stage.schedule.step(stage.next)).tokens
            stage.next += 1
        return {"seconds": time.perf_counter() - began, "tokens": tokens, "peak_mib": peak()}

    serve(answer)


if __name__ == "__main__":
    main()
