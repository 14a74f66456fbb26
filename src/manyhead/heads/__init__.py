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


class CosineHead(Options):
    """The cosine of the two vectors of a siamese pair: one output in [-1, 1], no parameters."""

    kind: Literal["cosine"] = "cosine"
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout of the vectors.")


HEADS: dict[str, Entry] = {
    "linear": Entry(LinearHead, "manyhead.heads.linear:build"),
    "hidden": Entry(HiddenHead, "manyhead.heads.hidden:build"),
    "cosine": Entry(CosineHead, "manyhead.heads.cosine:build"),
}
