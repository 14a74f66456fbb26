"""R-Drop: two passes with dropout of their own agree (Liang 2021)."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from manyhead.objectives.base import Piece
from manyhead.objectives.divergence import divergence
from manyhead.regularisers import RDrop
from manyhead.regularisers.base import Regulariser, TrainingPass, chosen


class RDropPenalty(Regulariser):
    """(L_1 + L_2) / 2 + alpha / 4 * (KL(P_1 | P_2) + KL(P_2 | P_1)) for each example: half the loss of Liang 2021.

    L are all losses of the task, of the step's own pass and of a second one with other dropout masks; scores have their
    squared difference in place of the KLs. Half, so that losses and rates mean what they do without it. The code that
    came with the paper halves L_1 + L_2 alone: alpha 1 there is 2 here.
    """

    def __init__(self, alpha: float, tasks: Sequence[str]) -> None:
        super().__init__()
        self.alpha = alpha
        self.tasks = tuple(tasks)

    def penalties(self, done: TrainingPass) -> Mapping[str, Tensor]:
        """What turns L_1 into the whole."""
        tasks = [task for task in done.objectives if task in self.tasks]
        if not tasks:
            return {}
        passed = done.model.run(done.batch.only(tasks))
        found: dict[str, Tensor] = {}
        for task in tasks:
            again = Piece(passed.outputs[task], passed.vectors[task], done.pieces[task].targets)
            apart = divergence(done.objectives[task], done.pieces[task].outputs, again.outputs)
            found[task] = (done.losses_of(task, again) - done.losses[task]) / 2 + self.alpha / 4 * apart
        return found


def build(options: RDrop, tasks: Sequence[str], model: nn.Module, total_steps: int) -> Regulariser:
    """See `RDropPenalty`."""
    del model, total_steps
    return RDropPenalty(options.alpha, chosen(options, tasks))
