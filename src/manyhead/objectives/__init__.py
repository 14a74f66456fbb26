"""Objectives: the loss of each example, and what a head's outputs predict.

An objective says how many outputs it wants (``outputs``), turns ``(E, O)`` outputs and ``(E,)`` targets into ``(E,)``
losses, and turns outputs into predictions: probabilities ``(E, C)`` or scores ``(E,)``. Losses are not reduced here:
one function divides by the step's count of examples, so that pieces of a step add up to the whole.

Free of torch: options and the table. Builders: ``build(options, target) -> Objective`` with a `TargetSpec`.
"""

from dataclasses import dataclass, field
from typing import Literal

from manyhead.recipe.schema import Entry, Options


@dataclass(frozen=True)
class TargetSpec:
    """What a task predicts: classes by name, or a score in a range; and how its classes are weighted.

    ``class_weights`` has one weight a class, or none at all.
    """

    labels: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    class_weights: tuple[float, ...] = field(default=())
    label_smoothing: float = 0.0


class CrossEntropy(Options):
    """Softmax cross entropy over the classes."""

    kind: Literal["cross_entropy"] = "cross_entropy"


class BinaryCrossEntropy(Options):
    """Binary cross entropy on one logit; two classes, the second is the positive one."""

    kind: Literal["bce"] = "bce"


class MeanSquaredError(Options):
    """Squared error on the raw scale of the target."""

    kind: Literal["mse"] = "mse"


class CosineMeanSquaredError(Options):
    """Squared error between the target and the range's top times the cosine (S1, S2): (y - 5 cos(u, v))^2."""

    kind: Literal["cosine_mse"] = "cosine_mse"


OBJECTIVES: dict[str, Entry] = {
    "cross_entropy": Entry(CrossEntropy, "manyhead.objectives.cross_entropy:build"),
    "bce": Entry(BinaryCrossEntropy, "manyhead.objectives.bce:build"),
    "mse": Entry(MeanSquaredError, "manyhead.objectives.mse:build"),
    "cosine_mse": Entry(CosineMeanSquaredError, "manyhead.objectives.cosine_mse:build"),
}

CLASSIFICATION = ("cross_entropy", "bce")
"""Losses of classification tasks that ship with the package."""
REGRESSION = ("mse", "cosine_mse")
"""Losses of regression tasks that ship with the package."""
