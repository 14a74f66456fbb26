"""The verdict: does one shared model do better than a model for each task?

`single` makes a recipe's single-task baselines, `budget` gives them as many examples as the shared run, `tuning` picks
each side's learning rate by the same number of trials, `run` trains what is left of all of it and compares, `document`
says what came out.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manyhead.studies.verdict.run import VerdictResult, run_verdict

__all__ = ["VerdictResult", "run_verdict"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'manyhead.studies.verdict' has no attribute '{name}'")
    from manyhead.studies.verdict import run

    return getattr(run, name)
