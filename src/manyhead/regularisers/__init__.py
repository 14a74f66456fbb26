"""Regularisers: penalties that are added to the tasks' losses, and changes of the gradients.

Free of torch: options and the table. Builders: ``build(options, tasks, model, total_steps) -> Regulariser`` with the
tasks and the updates of the stage, and the model that it trains.
"""

from typing import Literal

from pydantic import Field

from manyhead.recipe.schema import Entry, Options


class TaskRegulariser(Options):
    """A regulariser of some tasks' predictions."""

    tasks: list[str] | None = Field(
        default=None, min_length=1, description="Tasks it acts on; null: all that the stage trains."
    )


class Smart(TaskRegulariser):
    """Predictions stay the same around each input, and near those of averaged weights (SMART, Jiang 2020)."""

    kind: Literal["smart"] = "smart"
    weight: float = Field(default=1.0, ge=0, description="Of smoothness around the input (lambda_s).")
    epsilon: float = Field(default=1e-5, gt=0, description="Largest change of an embedding's component.")
    sigma: float = Field(default=1e-5, gt=0, description="Deviation of the noise that the search starts from.")
    step_size: float = Field(default=1e-3, gt=0, description="Of the search, along the gradient scaled to length 1.")
    steps: int = Field(default=1, ge=1, description="Steps of the search.")
    masks: Literal["shared", "own"] = Field(
        default="shared", description="Dropout masks of its passes: one for all (in fp32), or each its own (cheaper)."
    )
    detach: bool = Field(
        default=False, description="Clean predictions get no gradient, and `epsilon` no say (MT-DNN's manner)."
    )
    bregman: float | None = Field(
        default=None, ge=0, description="Weight of the distance to averaged weights' predictions (mu); null: none."
    )
    beta: float = Field(default=0.99, ge=0, le=1, description="Decay of the average in the first tenth of the updates.")
    beta_late: float = Field(default=0.999, ge=0, le=1, description="Decay of the average in the others.")


class RDrop(TaskRegulariser):
    """Two passes with dropout of their own agree (R-Drop, Liang 2021)."""

    kind: Literal["r_drop"] = "r_drop"
    alpha: float = Field(default=1.0, ge=0, description="Weight of the divergence between the passes.")


class L1(Options):
    """The absolute values of weight matrices; biases, norms and embeddings are left alone."""

    kind: Literal["l1"] = "l1"
    weight: float = Field(gt=0, description="What their sum counts in the loss.")


REGULARISERS: dict[str, Entry] = {
    "smart": Entry(Smart, "manyhead.regularisers.smart:build"),
    "r_drop": Entry(RDrop, "manyhead.regularisers.r_drop:build"),
    "l1": Entry(L1, "manyhead.regularisers.l1:build"),
}
