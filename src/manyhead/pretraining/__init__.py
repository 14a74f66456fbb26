"""Pretraining: what a stage learns from the tasks' texts in place of their targets.

Free of torch: options and the table. Builders: ``build(options, facts, model) -> Pretraining``, with the `TextFacts` of
the stage and the model that it trains. Raise `UsageError` where these do not fit.
"""

from typing import Literal

from pydantic import Field

from manyhead.recipe.schema import Entry, Options


class SimCSE(Options):
    """Each text twice under different dropout masks, against the other texts of its batch (S3; Gao 2021)."""

    kind: Literal["simcse"] = "simcse"
    temperature: float = Field(default=0.05, gt=0, description="What cosines are divided by before the softmax.")
    projection: bool = Field(default=True, description="A dense layer and tanh behind the pooling, in training only.")


class PairSimCSE(Options):
    """The texts of each pair of like meaning, against the other pairs of its batch (S3; Gao 2021, supervised)."""

    kind: Literal["simcse_pairs"] = "simcse_pairs"
    temperature: float = Field(default=0.05, gt=0, description="What cosines are divided by before the softmax.")
    minimum_score: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="Lowest score of a like pair, as a share of the task's range: .8 is 4 of 5.",
    )


class MaskedLanguageModel(Options):
    """Hidden tokens are guessed from the others (BERT, Devlin 2019)."""

    kind: Literal["mlm"] = "mlm"
    probability: float = Field(default=0.15, gt=0, le=1, description="Share of the tokens that are guessed.")


PRETRAINING: dict[str, Entry] = {
    "simcse": Entry(SimCSE, "manyhead.pretraining.contrastive:build"),
    "simcse_pairs": Entry(PairSimCSE, "manyhead.pretraining.contrastive:build_pairs"),
    "mlm": Entry(MaskedLanguageModel, "manyhead.pretraining.mlm:build"),
}
