"""Optimisers, and how parameters are grouped for them.

Free of torch: options and the table. Builders: ``build(options, groups) -> torch.optim.Optimizer``.
"""

from typing import Annotated, Literal

from pydantic import Field

from manyhead.recipe.schema import Entry, Options

Beta = Annotated[float, Field(ge=0, lt=1)]


class GroupOptions(Options):
    """What every optimiser takes: rates by group, and decay."""

    lr: float = Field(default=1e-5, gt=0, description="Rate of the encoder.")
    head_lr: float | None = Field(default=None, gt=0, description="Rate of heads and new layers; null: `lr`.")
    layer_decay: float = Field(default=1.0, gt=0, le=1, description="Each layer's rate is this times the one above it.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decay of weights; never of biases and layer norms.")


class AdamWOptions(GroupOptions):
    """AdamW: decay apart from the gradient. Its eps is that of the course's starter code (S1, S2, S4)."""

    kind: Literal["adamw"] = "adamw"
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(default=1e-6, gt=0)


class AdamOptions(GroupOptions):
    """Adam: decay as part of the gradient. Betas and eps of S3."""

    kind: Literal["adam"] = "adam"
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    eps: float = Field(default=1e-8, gt=0)


OPTIMIZERS: dict[str, Entry] = {
    "adamw": Entry(AdamWOptions, "manyhead.optimizers.adam:build_adamw"),
    "adam": Entry(AdamOptions, "manyhead.optimizers.adam:build_adam"),
}
