"""Balancing: from the K losses of a step, or their K gradients, to one update.

Free of torch: options and the table. Builders: ``build(options, tasks) -> Balancer``, where ``tasks`` maps the names of
the stage's tasks, in recipe order, to what the recipe says of them.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from manyhead.recipe.schema import Entry, Options

Constant = Annotated[float, Field(ge=0)]


class BalancingOptions(Options):
    """What a balancer's options say of it.

    ``several_tasks``: it means nothing where a step has one task. ``gradients``: it weighs the tasks' gradients over
    the parameters that they share, which pretraining has no use for.
    """

    several_tasks: ClassVar[bool] = False
    gradients: ClassVar[bool] = False


class ConstantOptions(BalancingOptions):
    """What balancers take that put a constant before each loss."""

    weights: dict[str, Constant] = Field(
        default={}, description="task: constant its loss is multiplied by first; tasks left out count 1."
    )


class GradientOptions(ConstantOptions):
    """What all balancers take that weigh the tasks' gradients over the shared parameters."""

    several_tasks: ClassVar[bool] = True
    gradients: ClassVar[bool] = True


class SumBalancing(BalancingOptions):
    """The plain sum of the tasks' losses."""

    kind: Literal["sum"] = "sum"


class WeightedBalancing(ConstantOptions):
    """The sum of the losses times one constant a task."""

    kind: Literal["weighted"] = "weighted"
    weights: dict[str, Constant] = Field(description="task: constant; tasks left out count 1.")


class GlsBalancing(BalancingOptions):
    """GLS: the geometric mean of the losses (MultiNet++; S2)."""

    several_tasks: ClassVar[bool] = True
    kind: Literal["gls"] = "gls"


class FlsBalancing(BalancingOptions):
    """FLS: GLS times the geometric mean of the losses in focus (S2)."""

    several_tasks: ClassVar[bool] = True
    kind: Literal["fls"] = "fls"
    focus: tuple[str, ...] = Field(min_length=1, description="Tasks in focus.")


class UncertaintyBalancing(BalancingOptions):
    """Each loss over its learned variance (Kendall 2018). The log-variances learn at the rate of heads."""

    kind: Literal["uncertainty"] = "uncertainty"


class DwaBalancing(BalancingOptions):
    """Dynamic weight average: more for losses that fell less over the last two epochs (Liu 2019)."""

    several_tasks: ClassVar[bool] = True
    kind: Literal["dwa"] = "dwa"
    temperature: float = Field(default=2.0, gt=0, description="Higher is closer to equal weights.")


class RandomBalancing(BalancingOptions):
    """New random weights for each step, which add up to 1 (Lin 2022)."""

    several_tasks: ClassVar[bool] = True
    kind: Literal["random"] = "random"


class GradNormBalancing(BalancingOptions):
    """Weights that learn to give all tasks gradients of like length, longer for those that lag (Chen 2018)."""

    several_tasks: ClassVar[bool] = True
    gradients: ClassVar[bool] = True
    kind: Literal["gradnorm"] = "gradnorm"
    alpha: float = Field(default=1.5, ge=0, description="How much more tasks that lag behind get.")
    lr: float = Field(default=0.025, gt=0, description="Rate of the weights.")


class ImtlLBalancing(BalancingOptions):
    """Each loss times a learned scale that brings all to 1 (Liu 2021). The scales learn at the rate of heads."""

    kind: Literal["imtl_l"] = "imtl_l"


class PcgradBalancing(GradientOptions):
    """PCGrad: each task's gradient is projected off those it conflicts with (Yu 2020; S4)."""

    kind: Literal["pcgrad"] = "pcgrad"
    always: bool = Field(default=False, description="Project off the others' gradients, in conflict or not (S3).")


class UpgradBalancing(GradientOptions):
    """UPGrad: each gradient is projected to conflict with none, and the mean taken (Quinton 2024)."""

    kind: Literal["upgrad"] = "upgrad"


class DualprojBalancing(GradientOptions):
    """The mean gradient, projected to conflict with none (Lopez-Paz 2017)."""

    kind: Literal["dualproj"] = "dualproj"


class MgdaBalancing(GradientOptions):
    """MGDA: the shortest convex combination of the gradients (Sener 2018)."""

    kind: Literal["mgda"] = "mgda"
    epsilon: float = Field(default=0.001, gt=0, description="Step size that ends the search.")
    max_iters: int = Field(default=100, ge=1, description="Steps that end the search.")


class ImtlGBalancing(GradientOptions):
    """IMTL-G: the combination that all gradients have equal projections on (Liu 2021)."""

    kind: Literal["imtl_g"] = "imtl_g"


class AlignedMtlBalancing(GradientOptions):
    """Aligned-MTL: the gradients' principal components brought to one length (Senushkin 2023)."""

    kind: Literal["aligned_mtl"] = "aligned_mtl"
    scale_mode: Literal["min", "median", "rmse"] = Field(default="min", description="The length: of which component.")


class CagradBalancing(GradientOptions):
    """CAGrad: the update near the mean gradient that serves the worst task best (Liu 2021)."""

    kind: Literal["cagrad"] = "cagrad"
    c: float = Field(default=0.5, ge=0, description="How far from the mean gradient, as a share of its length.")


class NashMtlBalancing(GradientOptions):
    """Nash-MTL: the update that tasks would agree on by bargaining (Navon 2022)."""

    kind: Literal["nash_mtl"] = "nash_mtl"
    max_norm: float = Field(default=1.0, gt=0, description="Longest update over the shared parameters.")


class FairgradBalancing(GradientOptions):
    """FairGrad: the update that is alpha-fair to the tasks' gains (Ban 2024)."""

    kind: Literal["fairgrad"] = "fairgrad"
    alpha: float = Field(default=1.0, gt=0, description="1: proportional fairness; higher: nearer to equal gains.")


class GradvacBalancing(GradientOptions):
    """GradVac: each gradient is turned towards the others until their usual angle is reached (Wang 2021)."""

    kind: Literal["gradvac"] = "gradvac"
    beta: float = Field(default=0.01, ge=0, le=1, description="Share of a step in what angles are usual.")


BALANCING: dict[str, Entry] = {
    "sum": Entry(SumBalancing, "manyhead.balancing.constants:build_sum"),
    "weighted": Entry(WeightedBalancing, "manyhead.balancing.constants:build_weighted"),
    "gls": Entry(GlsBalancing, "manyhead.balancing.geometric:build_gls"),
    "fls": Entry(FlsBalancing, "manyhead.balancing.geometric:build_fls"),
    "uncertainty": Entry(UncertaintyBalancing, "manyhead.balancing.uncertainty:build"),
    "dwa": Entry(DwaBalancing, "manyhead.balancing.dwa:build"),
    "random": Entry(RandomBalancing, "manyhead.balancing.random_weights:build"),
    "gradnorm": Entry(GradNormBalancing, "manyhead.balancing.gradnorm:build"),
    "imtl_l": Entry(ImtlLBalancing, "manyhead.balancing.imtl_l:build"),
    "pcgrad": Entry(PcgradBalancing, "manyhead.balancing.pcgrad:build"),
    "upgrad": Entry(UpgradBalancing, "manyhead.balancing.gramian:build_upgrad"),
    "dualproj": Entry(DualprojBalancing, "manyhead.balancing.gramian:build_dualproj"),
    "mgda": Entry(MgdaBalancing, "manyhead.balancing.gramian:build_mgda"),
    "imtl_g": Entry(ImtlGBalancing, "manyhead.balancing.gramian:build_imtl_g"),
    "aligned_mtl": Entry(AlignedMtlBalancing, "manyhead.balancing.gramian:build_aligned_mtl"),
    "cagrad": Entry(CagradBalancing, "manyhead.balancing.gramian:build_cagrad"),
    "nash_mtl": Entry(NashMtlBalancing, "manyhead.balancing.fairness:build_nash_mtl"),
    "fairgrad": Entry(FairgradBalancing, "manyhead.balancing.fairness:build_fairgrad"),
    "gradvac": Entry(GradvacBalancing, "manyhead.balancing.gradvac:build"),
}
