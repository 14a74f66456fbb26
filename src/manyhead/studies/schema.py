"""The study: its rows, what they are compared with, and how much of each recipe is run."""

from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field

from manyhead.recipe.schema import EMBEDDED, Count, Name, Strict, TaskName

FORMAT = 1
"""Version of the study format this package reads (key ``study``)."""

BudgetName = Literal["smoke", "small", "full"]
Figures = dict[str, float]
"""Score (a task's name for its own metric, TASK.METRIC, overall, overall_raw) to its value."""


class Budget(Strict):
    """How much of each recipe is run. An omitted key leaves the recipe as it is."""

    examples: Count | None = Field(
        default=None, description="Most training examples of a run, over all stages and epochs."
    )
    stage_share: float = Field(
        default=0.1, ge=0, lt=1, description="Where examples are cut, each stage gets at least this share of them."
    )
    epochs: Count | None = Field(default=None, description="Most epochs of a stage.")
    batch_size: Count | None = Field(default=None, description="Most examples of a task in an update.")
    dev_rows: Count | None = Field(default=None, description="Dev rows of a task that are scored: the first ones.")
    checkpoint: str | None = Field(default=None, description="Encoder in the place of one from the hub.")
    rate_factor: float = Field(default=1.0, gt=0, description="Learning rates are multiplied by it.")


BUDGETS: dict[BudgetName, Budget] = {
    "smoke": Budget(examples=64, epochs=1, batch_size=4, dev_rows=64, checkpoint=EMBEDDED),
    "small": Budget(examples=3000, epochs=2, dev_rows=2000, checkpoint=EMBEDDED, rate_factor=10.0),
    "full": Budget(),
}
"""What budgets are unless a study says otherwise."""


def _named(value: object) -> object:
    return {"recipe": value} if isinstance(value, str) else value


class Row(Strict):
    """A row of the table: one recipe, every point of a recipe's grid, or several recipes, each giving some tasks."""

    recipe: str | None = Field(default=None, description="A path relative to the study, or a shipped recipe's name.")
    row: dict[TaskName, str] | None = Field(
        default=None, description="task: the recipe whose run gives its scores, in place of one recipe."
    )
    name: str | None = Field(default=None, min_length=1, max_length=100, description="Name of the row.")
    settings: dict[str, Any] = Field(default={}, alias="set", description="Dotted keys of the recipe and their values.")
    published: Figures | None = Field(default=None, description="Figures beside ours; null: those of the recipe.")


class Study(Strict):
    """A whole study."""

    study: Literal[1] = Field(description="Version of the study format.")
    name: Name = Field(description="Name of the study.")
    title: str = Field(default="", description="What is compared.")
    baseline: str | None = Field(default=None, description="Name of the row that differences are taken to; null: none.")
    seeds: Count = Field(default=1, description="Seeds of each row: the recipe's, and those after it.")
    scores: list[str] | None = Field(
        default=None, description="Columns of the table; null: each task's own metric, overall and overall_raw."
    )
    budgets: dict[BudgetName, Budget] = Field(default={}, description="Keys that replace those of a budget.")
    rows: list[Annotated[Row, BeforeValidator(_named, json_schema_input_type=str | Row)]] = Field(
        min_length=1, description="The rows: names of recipes, or mappings."
    )

    def budget(self, name: BudgetName) -> Budget:
        """The budget of that name, with what the study says of it."""
        own = self.budgets.get(name)
        changes = {} if own is None else {key: getattr(own, key) for key in own.model_fields_set}
        return BUDGETS[name].model_copy(update=cast("dict[str, Any]", changes))
