"""How far apart two outputs of one task are: what consistency regularisers add up."""

from torch import Tensor

from manyhead.objectives.base import Objective


def divergence(objective: Objective, outputs: Tensor, other: Tensor) -> Tensor:
    """Distance (E,) between the predictions of two outputs (E, O) of the same examples; gradients reach both.

    Where outputs give probabilities to classes, the symmetric Kullback-Leibler divergence KL(P|Q) + KL(Q|P), of
    Bernoullis for one logit; else the squared difference of the scores (SMART, Jiang 2020, section 3.1). In R-Drop
    (Liang 2021, equation 3) half of it counts.
    """
    logs, others = objective.log_probabilities(outputs), objective.log_probabilities(other)
    if logs is None or others is None:
        scores, other_scores = objective.predict(outputs).scores, objective.predict(other).scores
        assert scores is not None
        assert other_scores is not None
        return (scores - other_scores).square()
    return ((logs.exp() - others.exp()) * (logs - others)).sum(1)
