"""The shared encoder: loading it, running it packed, what tasks have of their own in it, and one vector a sequence.

Free of torch: this module holds the options and tables of pooling, of the projections behind it (methods.md section 2)
and of the experts inside the encoder (section 3).
"""

from typing import Literal, Self

from pydantic import Field, model_validator

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


Activation = Literal["tanh", "relu", "gelu", "none"]


class DenseProjection(Options):
    """A dense layer from D to D and an activation: the encoding module of S4."""

    kind: Literal["dense"] = "dense"
    activation: Activation = Field(default="tanh", description="Behind the dense layer.")


class MlpProjection(Options):
    """Dropout, dense, activation, dense back to D: the MLP that all tasks share in S4's V3."""

    kind: Literal["mlp"] = "mlp"
    width: int | None = Field(default=None, ge=1, description="Width of the hidden layer; null: that of the encoder.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout of its input.")
    activation: Activation = Field(default="relu", description="Behind the hidden layer.")


PROJECTIONS: dict[str, Entry] = {
    "dense": Entry(DenseProjection, "manyhead.encoder.projections:build_dense"),
    "mlp": Entry(MlpProjection, "manyhead.encoder.projections:build_mlp"),
}


class PalOptions(Options):
    """What projected attention layers have in common."""

    width: int = Field(default=204, ge=1, description="Width d of the attention; `heads` divides it.")
    heads: int = Field(default=12, ge=1, description="Attention heads.")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self


class PalTopExperts(PalOptions):
    """A projected attention layer of each task's own behind the encoder: D to d, attention, back to D."""

    kind: Literal["pal_top"] = "pal_top"
    variant: Literal["residual", "stickland"] = Field(
        default="residual", description="residual: one layer and an outer residual (S1); stickland: six closed layers."
    )


class PalParallelExperts(PalOptions):
    """A projected attention layer of each task's own beside each layer (Stickland and Murray 2019)."""

    kind: Literal["pal_parallel"] = "pal_parallel"


class LowRankExperts(Options):
    """W0 + (alpha / rank) B A for each task, on each layer's attention output, intermediate and output matrix (S3)."""

    kind: Literal["low_rank"] = "low_rank"
    rank: int = Field(default=256, ge=1, description="Rank of B A.")
    alpha: float = Field(default=32.0, gt=0, description="B A counts alpha / rank.")
    freeze: bool = Field(default=True, description="Only the experts train inside the encoder, not its own weights.")


class CopiesExperts(Options):
    """Specialised models (S3): one encoder, pooling and projections for each task."""

    kind: Literal["copies"] = "copies"


EXPERTS: dict[str, Entry] = {
    "pal_top": Entry(PalTopExperts, "manyhead.encoder.experts.pal:build_top"),
    "pal_parallel": Entry(PalParallelExperts, "manyhead.encoder.experts.pal:build_parallel"),
    "low_rank": Entry(LowRankExperts, "manyhead.encoder.experts.low_rank:build"),
    "copies": Entry(CopiesExperts, "manyhead.encoder.experts.copies:build"),
}
