"""Heads: from a task's pooled vectors to its outputs. Every task owns one; none is shared.

A head is a module that maps ``(E, F)`` features to ``(E, O)`` outputs. F is the width of the pair features: D for a
single sequence; for a siamese pair (u, v) what ``features`` says. O is what the task's objective asks for.

Free of torch: options and the table. Builders: ``build(options, width, outputs, siamese) -> nn.Module``.
"""

from typing import Literal

from pydantic import Field

from manyhead.recipe.schema import Entry, Options

PairFeatures = Literal["uv_difference", "uv"]


class LinearHead(Options):
    """Dropout, then a dense layer."""

    kind: Literal["linear"] = "linear"
    dropout: float = Field(default=0.3, ge=0, lt=1, description="Dropout of the features.")
    features: PairFeatures = Field(default="uv_difference", description="Siamese pairs: [u; v; |u-v|] or [u; v].")


class HiddenHead(Options):
    """Dropout, dense, LayerNorm, activation, dense (S1)."""

    kind: Literal["hidden"] = "hidden"
    dropout: float = Field(default=0.3, ge=0, lt=1, description="Dropout of the features.")
    width: int = Field(default=256, ge=1, description="Width of the hidden layer.")
    activation: Literal["gelu", "none"] = Field(default="gelu", description="After the LayerNorm.")
    features: PairFeatures = Field(default="uv_difference", description="Siamese pairs: [u; v; |u-v|] or [u; v].")


class MlpHead(Options):
    """Dropout, then dense and activation one or more times, dense."""

    kind: Literal["mlp"] = "mlp"
    dropout: float = Field(default=0.3, ge=0, lt=1, description="Dropout of the features.")
    width: int = Field(default=256, ge=1, description="Width of the hidden layers.")
    depth: int = Field(default=1, ge=1, description="Hidden layers.")
    activation: Literal["relu", "gelu", "tanh"] = Field(default="relu", description="Behind each hidden layer.")
    features: PairFeatures = Field(default="uv_difference", description="Siamese pairs: [u; v; |u-v|] or [u; v].")


class CosineHead(Options):
    """The cosine of the two vectors of a siamese pair: one output in [-1, 1]."""

    kind: Literal["cosine"] = "cosine"
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout of the vectors.")
    mlp: int | None = Field(
        default=None, ge=1, description="Width of an MLP that each vector goes through first (S4); null: none."
    )


class BlendHead(Options):
    """alpha f([u; v; |u-v|]) + (1 - alpha) scale cos(u, v) of a siamese pair: one output (S4)."""

    kind: Literal["blend"] = "blend"
    alpha: float = Field(default=0.5, ge=0, le=1, description="Share of f.")
    width: int | None = Field(default=None, ge=1, description="Hidden width of f, an MLP; null: f is one dense layer.")
    scale: float = Field(default=1.0, gt=0, description="Of the cosine: the top of a score's range, 1 for a logit.")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="Dropout of f's features.")


class RelatedHead(Options):
    """A dense layer on the class probabilities that another task's head gives the same text (S2's later work)."""

    kind: Literal["related"] = "related"
    to: str = Field(description="The other task: a classification that reads as many texts, as this one does.")


HEADS: dict[str, Entry] = {
    "linear": Entry(LinearHead, "manyhead.heads.linear:build"),
    "hidden": Entry(HiddenHead, "manyhead.heads.hidden:build"),
    "mlp": Entry(MlpHead, "manyhead.heads.mlp:build"),
    "cosine": Entry(CosineHead, "manyhead.heads.cosine:build"),
    "blend": Entry(BlendHead, "manyhead.heads.blend:build"),
    "related": Entry(RelatedHead, "manyhead.heads.related:build"),
}

COSINE_LOSSES = ("cosine_mse", "mnr", "cosine_embedding", "cosine_triplet")
"""Losses that read outputs as cosines: they go with the cosine head alone."""
PAIR_HEADS: dict[str, tuple[str, ...]] = {
    "cosine": ("bce", *COSINE_LOSSES),
    "blend": ("bce", "mse", "mse_l1"),
}
"""Heads of siamese pairs, and the losses that can be made of their one output."""
