"""The page of a verdict: one shared model, or one for each task?"""

from collections.abc import Sequence
from dataclasses import dataclass

from manyhead.evaluation.statistics.comparison import Comparison
from manyhead.report.comparison import against
from manyhead.report.page import ENVIRONMENT


@dataclass(frozen=True)
class TextTable:
    """A table of texts: the first ``left`` columns are words, the others stand to the right."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


def sharing_page(
    name: str, sentence: str, comparison: Comparison | None, tables: Sequence[TextTable], how: Sequence[str]
) -> str:
    """One HTML document that needs nothing else: the answer first, then what it rests on.

    Args:
        name: Of the recipe.
        sentence: The answer in a line.
        comparison: The shared side against the other; None where there is nothing to compare.
        tables: Scores, costs.
        how: Lines on how both sides were made.
    """
    side = None if comparison is None else against(comparison, 1)
    return ENVIRONMENT.get_template("sharing.html.j2").render(
        name=name, sentence=sentence, side=side, tables=tables, how=how
    )
