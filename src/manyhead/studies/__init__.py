"""Studies: many runs, one table.

`schema` is the file format and `load` reads it; `plan` turns rows, grids and seeds into runs, which `budget` makes
smaller; `runner` trains them in processes of their own; `table` says what came out beside what was published.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manyhead.studies.run import StudyResult, run_study

__all__ = ["StudyResult", "run_study"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'manyhead.studies' has no attribute '{name}'")
    from manyhead.studies import run

    return getattr(run, name)
