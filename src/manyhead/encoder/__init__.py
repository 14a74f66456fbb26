"""The shared encoder: loading it, running it packed, and pooling token states into one vector a sequence.

Free of torch: this module holds the options of pooling (methods.md section 2) and the table that names its members.
"""

from typing import Literal

from pydantic import Field

from manyhead.recipe.schema import Entry, Options


class ClsPooling(Options):
    """The state of the first token."""

    kind: Literal["cls"] = "cls"


class PoolerPooling(Options):
    """The encoder's own pooler: a dense layer and tanh on the first token's state (new if it brings none)."""

    kind: Literal["pooler"] = "pooler"


class MeanPooling(Options):
    """The mean over a sequence's tokens."""

    kind: Literal["mean"] = "mean"


class MaxPooling(Options):
    """The largest value over a sequence's tokens, dimension by dimension."""

    kind: Literal["max"] = "max"


class AttentionPooling(Options):
    """Mean weighted by the attention each token receives in the pooled layer, over heads and queries."""

    kind: Literal["attention"] = "attention"


class ConvPooling(Options):
    """1-D convolutions over the tokens, their outputs joined by a dense layer, then the mean."""

    kind: Literal["conv"] = "conv"
    kernels: tuple[Literal[1, 3, 5, 7, 9], ...] = Field(
        default=(1, 3, 5), min_length=1, description="Widths in tokens."
    )


POOLING: dict[str, Entry] = {
    "cls": Entry(ClsPooling, "manyhead.encoder.pooling:build_cls"),
    "pooler": Entry(PoolerPooling, "manyhead.encoder.pooling:build_pooler"),
    "mean": Entry(MeanPooling, "manyhead.encoder.pooling:build_mean"),
    "max": Entry(MaxPooling, "manyhead.encoder.pooling:build_max"),
    "attention": Entry(AttentionPooling, "manyhead.encoder.pooling:build_attention"),
    "conv": Entry(ConvPooling, "manyhead.encoder.pooling:build_conv"),
}
