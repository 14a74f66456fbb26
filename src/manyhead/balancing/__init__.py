"""Balancing: from the K losses of a step to the one number that is differentiated.

Free of torch: options and the table. Builders: ``build(options, tasks) -> Balancer``.
"""

from typing import Literal

from pydantic import Field

from manyhead.recipe.schema import Entry, Options


class SumBalancing(Options):
    """The plain sum of the tasks' losses."""

    kind: Literal["sum"] = "sum"


class WeightedBalancing(Options):
    """The sum of the losses times one constant a task."""

    kind: Literal["weighted"] = "weighted"
    weights: dict[str, float] = Field(description="task: constant; tasks left out count 1.")


BALANCING: dict[str, Entry] = {
    "sum": Entry(SumBalancing, "manyhead.balancing.weighted:build_sum"),
    "weighted": Entry(WeightedBalancing, "manyhead.balancing.weighted:build"),
}
