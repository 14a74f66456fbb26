"""One gradient a task over the shared parameters, balanced by how they stand to each other."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from manyhead.balancing.base import Balancer, Key, Signals
from manyhead.model import MultiTaskModel
from manyhead.schedules.base import Part
from manyhead.training.clipping import Clipping
from manyhead.training.gradients import Balanced, Forward, backward
from manyhead.training.rows import Rows
from manyhead.training.segments import Split, split_of

CANCELLED = 1e-3
"""Share of the rows' squares below which their sum's square is not taken from the Gramian."""


class TaskGradients:
    """A row for each task over the shared parameters; the heads' gradients, and experts', are theirs alone already.

    The constants come first, then accumulation over the pieces, then ``clipping`` of each task's whole gradient (its
    row and that of its own parameters), then the balancer's weights, by the Gramian of the rows. The rows' weighted sum
    is written back to the shared parameters; a task's own parameters are scaled by its weight where the balancer
    weighs them.

    Rows come from one backward over all tasks, split by their tokens, where ``together`` allows it and the encoder's
    modules do; else from a forward and a backward for each task. Both give the same gradients, with other dropout
    masks. ``together`` has to be False where losses use shared parameters in another way than by running the model.

    ``rows`` are those of the step; ``split`` is None where, as the first step finds, tasks run apart.
    """

    def __init__(self, balancer: Balancer, model: MultiTaskModel, clipping: Clipping, *, together: bool = True) -> None:
        self.balancer = balancer
        self.model = model
        self.clipping = clipping
        self._together = together
        self._own: dict[str | None, list[nn.Parameter]] = {}
        self.split: Split | None = None
        self.rows = Rows()
        self._key: Key | None = None

    def add(self, forward: Forward, parts: Sequence[Part], signals: Signals) -> Mapping[str, Tensor]:
        """See `Gradients.add`."""
        if self._key != signals.key:
            self._look_at_model()
            self.rows.start(signals.tasks)
            self._key = signals.key
        if self.split is None or len(parts) == 1:
            return self._separately(forward, parts)
        with self.split.watching():
            losses = forward(parts)
            with self.split.into(self.rows):
                backward(losses, self.balancer.constants)
        return {task: loss.detach() for task, loss in losses.items()}

    def finish(self, signals: Signals, clipping: Clipping | None) -> Balanced:
        """See `Gradients.finish`. A gradient that is 0 has cosines of 0.

        The norm of the rows' sum follows from the Gramian: to clip it takes no look at the parameters.
        """
        self._key = None
        gramian = self.rows.gramian()
        norms = gramian.diagonal().sqrt()
        weights = torch.ones(len(signals.tasks), dtype=torch.float64)
        norm: float | None = None
        if bool(gramian.isfinite().all()):  # a step that is not finite is refused by its norm
            factors = self._clipped(gramian, signals.tasks)
            gramian = gramian * factors * factors[:, None]
            weights = self.balancer.weights(replace(signals, gramian=gramian)).double()
            self._scale_own(signals.tasks, weights * factors if self.balancer.weighs_heads else factors)
            if clipping is not None and (length := self._length(gramian, weights)) is not None:
                whole = float(clipping.factor(length))
                self._scale_own(signals.tasks, torch.full_like(weights, whole))
                weights, norm = weights * whole, float(length)
            weights = weights * factors
        self.rows.combine(weights)
        lengths = gramian.diagonal().sqrt()
        cosines = (gramian / lengths / lengths[:, None]).nan_to_num(0.0, 0.0, 0.0).clamp(-1.0, 1.0)
        return Balanced(cosines, norms, norm)

    def _length(self, gramian: Tensor, weights: Tensor) -> Tensor | None:
        """The norm of the whole gradient; None where so little is left of the rows that rounding would count."""
        square = weights @ gramian @ weights
        if float(square) < CANCELLED * float((weights.square() * gramian.diagonal()).sum()):
            return None
        own = [each.grad for task, each_own in self._own.items() if task for each in each_own if each.grad is not None]
        return (square + torch.nn.utils.get_total_norm(own).cpu().double() ** 2).sqrt()

    def _look_at_model(self) -> None:
        """Finds out, in the first step, what trains and how: both stay so for a stage."""
        if self._own:
            return
        trained = [(name, each) for name, each in self.model.named_parameters() if each.requires_grad]
        for name, parameter in trained:
            self._own.setdefault(self.model.task_of(name), []).append(parameter)
        if self._together and (shared := self._own.get(None)):
            self.split = split_of(self.model, frozenset(shared))

    def _separately(self, forward: Forward, parts: Sequence[Part]) -> dict[str, Tensor]:
        """A forward and a backward for each part."""
        shared = self._own.get(None, [])
        kept = [parameter.grad for parameter in shared]
        seen: dict[str, Tensor] = {}
        for part in parts:
            for parameter in shared:
                parameter.grad = None
            losses = forward([part])
            backward(losses, self.balancer.constants)
            seen[part.task] = losses[part.task].detach()
            for parameter in shared:
                if parameter.grad is not None:
                    self.rows.add(parameter, part.task, parameter.grad)
        for parameter, gradient in zip(shared, kept, strict=True):
            parameter.grad = gradient
        return seen

    def _clipped(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """What clipping scales each task's gradient by, (K,)."""
        squares = gramian.diagonal().clone()
        if self.clipping.norm is not None:
            for place, task in enumerate(tasks):
                squares[place] += torch.nn.utils.get_total_norm(self._own_gradients(task)).cpu().double() ** 2
        return self.clipping.factor(squares.sqrt())

    def _scale_own(self, tasks: Sequence[str], factors: Tensor) -> None:
        for task, factor in zip(tasks, factors.tolist(), strict=True):
            for gradient in self._own_gradients(task) if factor != 1.0 else ():
                gradient.mul_(factor)

    def _own_gradients(self, task: str) -> list[Tensor]:
        return [each.grad for each in self._own.get(task, ()) if each.grad is not None]
