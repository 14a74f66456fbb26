"""Objectives: the loss of each example, and what a head's outputs predict.

An objective says how many outputs it wants (``outputs``), turns ``(E, O)`` outputs, or the vectors that the head read,
and ``(E,)`` targets into ``(E,)`` losses, and turns outputs into predictions: probabilities ``(E, C)`` or scores
``(E,)``. Losses are not reduced here: one function divides by the step's count of examples, so that pieces of a step
add up to the whole.

Free of torch: options and the table. Builders: ``build(options, target) -> Objective`` with a `TargetSpec`.
"""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

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
    threshold: Literal["fixed", "fitted"] = Field(
        default="fixed", description="Positive above 0, or above the logit that is most accurate on the training rows."
    )


class MeanSquaredError(Options):
    """Squared error on the raw scale of the target."""

    kind: Literal["mse"] = "mse"


class CosineMeanSquaredError(Options):
    """Squared error between the target and the range's top times the cosine (S1, S2): (y - 5 cos(u, v))^2."""

    kind: Literal["cosine_mse"] = "cosine_mse"


class MeanSquaredAndAbsoluteError(Options):
    """gamma * (y - output)^2 + (1 - gamma) * |y - output| (S4 "lasso")."""

    kind: Literal["mse_l1"] = "mse_l1"
    gamma: float = Field(default=0.5, ge=0, le=1, description="Share of the squared error.")


class ScoreCrossEntropy(Options):
    """Cross entropy over the whole numbers of the range; the expectation is the predicted score (S2)."""

    kind: Literal["score_cross_entropy"] = "score_cross_entropy"
    targets: Literal["soft", "hard"] = Field(
        default="soft", description="A score is shared by the two numbers next to it, or rounded half up."
    )


class VectorLoss(Options):
    """A loss of a siamese pair's two vectors, whatever the head does with them; may stand in ``auxiliary``."""

    weight: float = Field(default=1.0, gt=0, description="What it counts in `auxiliary`.")


class MultipleNegativesRanking(VectorLoss):
    """Each positive pair against the other positives of its batch (S1; Henderson 2017)."""

    kind: Literal["mnr"] = "mnr"
    scale: float = Field(default=20.0, gt=0, description="What cosines are multiplied by before the softmax.")


class CosineEmbedding(VectorLoss):
    """1 - cos for positive pairs, max(0, cos - margin) for negative ones (S4)."""

    kind: Literal["cosine_embedding"] = "cosine_embedding"
    margin: float = Field(default=0.0, ge=-1, le=1, description="Cosine that negative pairs may have.")


class CosineTriplet(VectorLoss):
    """Positive pairs nearer, by 1 - cos, than a sentence of the batch before (S4)."""

    kind: Literal["cosine_triplet"] = "cosine_triplet"
    margin: float = Field(default=1.0, ge=0, description="How much nearer.")


OBJECTIVES: dict[str, Entry] = {
    "cross_entropy": Entry(CrossEntropy, "manyhead.objectives.cross_entropy:build"),
    "bce": Entry(BinaryCrossEntropy, "manyhead.objectives.bce:build"),
    "mse": Entry(MeanSquaredError, "manyhead.objectives.mse:build"),
    "mse_l1": Entry(MeanSquaredAndAbsoluteError, "manyhead.objectives.mse:build_with_l1"),
    "score_cross_entropy": Entry(ScoreCrossEntropy, "manyhead.objectives.score_cross_entropy:build"),
    "cosine_mse": Entry(CosineMeanSquaredError, "manyhead.objectives.cosine_mse:build"),
    "mnr": Entry(MultipleNegativesRanking, "manyhead.objectives.mnr:build"),
    "cosine_embedding": Entry(CosineEmbedding, "manyhead.objectives.cosine_embedding:build"),
    "cosine_triplet": Entry(CosineTriplet, "manyhead.objectives.cosine_triplet:build"),
}

VECTOR_LOSSES = ("mnr", "cosine_embedding", "cosine_triplet")
"""Losses of the vectors of siamese pairs that ship with the package: those that may be auxiliary."""
CLASSIFICATION = ("cross_entropy", "bce", *VECTOR_LOSSES)
"""Losses of classification tasks that ship with the package."""
TWO_CLASSES = ("bce", *VECTOR_LOSSES)
"""Those of them that are for two classes."""
REGRESSION = ("mse", "mse_l1", "score_cross_entropy", "cosine_mse")
"""Losses of regression tasks that ship with the package."""
