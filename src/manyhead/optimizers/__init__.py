"""Optimisers, and how parameters are grouped for them.

Free of torch: options and the table. Builders: ``build(options, groups) -> torch.optim.Optimizer``.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from manyhead.optimizers.pytorch_optimizer_names import REFUSED, USABLE
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


class AdaBeliefOptions(GroupOptions):
    """AdaBelief: decay apart from the gradient. Betas of S2, eps of the paper (Zhuang et al. 2020)."""

    kind: Literal["adabelief"] = "adabelief"
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(default=1e-16, gt=0)


class SGDOptions(GroupOptions):
    """Stochastic gradient descent: decay as part of the gradient."""

    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(default=0.0, ge=0, lt=1, description="Share of the last update that is added to the next.")
    nesterov: bool = Field(default=False, description="Take the gradient as if the momentum had been followed.")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


RESERVED_OPTIONS = ("params", "lr", "weight_decay")
"""Parameters of constructors that the recipe's own keys give."""


class PytorchOptimizerOptions(GroupOptions):
    """Any optimiser of the package pytorch_optimizer, with that package's defaults.

    It is tried on tiny parameters before training, and refused unless it resumes to the same bits, keeps to the rates
    and leaves parameters without a gradient alone. Most of them count steps by group of parameters: a head trained for
    the first time late in an epoch has its moments corrected as if it had been trained all along.
    """

    kind: Literal["pytorch_optimizer"] = "pytorch_optimizer"
    name: str = Field(description="Its class, such as Lion; in upper or lower case.")
    options: dict[str, Any] = Field(
        default={}, description="Arguments of its constructor by name, but rates and decay."
    )

    @field_validator("name")
    @classmethod
    def _of_the_package(cls, name: str) -> str:
        """The name as the package writes it."""
        found = {each.lower(): each for each in (*USABLE, *REFUSED)}.get(name.lower())
        if found is None:
            raise PydanticCustomError("unknown_kind", "unknown '{kind}'", {"kind": name, "choices": list(USABLE)})
        if found in REFUSED:
            raise ValueError(f"'{found}' cannot be used: {REFUSED[found]}; choose another")
        return found

    @field_validator("options")
    @classmethod
    def _others(cls, options: dict[str, Any]) -> dict[str, Any]:
        if reserved := [name for name in options if name in RESERVED_OPTIONS]:
            raise ValueError(f"{', '.join(reserved)} cannot be given here; lr and weight_decay stand beside the name")
        return options


OPTIMIZERS: dict[str, Entry] = {
    "adamw": Entry(AdamWOptions, "manyhead.optimizers.adam:build_adamw"),
    "adam": Entry(AdamOptions, "manyhead.optimizers.adam:build_adam"),
    "adabelief": Entry(AdaBeliefOptions, "manyhead.optimizers.adabelief:build"),
    "sgd": Entry(SGDOptions, "manyhead.optimizers.sgd:build"),
    "pytorch_optimizer": Entry(PytorchOptimizerOptions, "manyhead.optimizers.pytorch_optimizer:build"),
}
