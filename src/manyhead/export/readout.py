"""From the first token's state to a task's outputs as matrices and activations: what plain classes are made of.

All is composed in float64 and rounded once.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from manyhead.encoder.per_task import PerTask
from manyhead.encoder.pooling import Cls, Pooler
from manyhead.export.source import NoCounterpartError, Source
from manyhead.heads.hidden import Hidden
from manyhead.heads.linear import Linear
from manyhead.heads.mlp import Mlp
from manyhead.objectives.bce import LogitCrossEntropy
from manyhead.objectives.cross_entropy import SoftmaxCrossEntropy
from manyhead.objectives.mse import SquaredError

ACTIVATIONS: dict[type[nn.Module], str] = {nn.Tanh: "tanh", nn.ReLU: "relu", nn.GELU: "gelu"}


@dataclass(frozen=True)
class Affine:
    """W x + b: ``weight`` (O, I), ``bias`` (O,), both float64."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, dense: nn.Linear) -> Self:
        """That of a dense layer."""
        bias = dense.weight.new_zeros(dense.out_features) if dense.bias is None else dense.bias
        return cls(dense.weight.detach().double(), bias.detach().double())

    def then(self, other: "Affine") -> "Affine":
        """``other`` of this."""
        return Affine(other.weight @ self.weight, other.weight @ self.bias + other.bias)


@dataclass(frozen=True)
class Readout:
    """``last(activation(first(x)))`` of the first token's state x (D,); ``last(x)`` where there is no activation."""

    last: Affine
    first: Affine | None = None
    activation: str | None = None

    def widened(self, width: int) -> "Readout":
        """The same with ``width`` hidden units, the new ones without effect. Raises ValueError if it has more."""
        assert self.first is not None
        more = width - len(self.first.bias)
        if more < 0:
            raise ValueError(f"{len(self.first.bias)} hidden units are more than {width}")
        first = Affine(
            nn.functional.pad(self.first.weight, (0, 0, 0, more)), nn.functional.pad(self.first.bias, (0, more))
        )
        return replace(self, first=first, last=Affine(nn.functional.pad(self.last.weight, (0, more)), self.last.bias))

    def through(self, activation: str) -> "Readout":
        """The same with the ``activation`` relu or gelu, of which f(z) - f(-z) = z; it must have none yet."""
        assert self.first is None
        outputs = len(self.last.bias)
        both = Affine(torch.cat([self.last.weight, -self.last.weight]), torch.cat([self.last.bias, -self.last.bias]))
        eye = torch.eye(outputs, dtype=torch.float64)
        return Readout(Affine(torch.cat([eye, -eye], 1), torch.zeros(outputs).double()), both, activation)


def readout_of(source: Source, task: str) -> Readout:
    """How ``task`` reads the first token's state, down to the logits of its probabilities, or its score.

    Threshold and temperature are in the last matrix; one logit becomes two, of which the first is 0. Raises
    `NoCounterpartError` where it is not of that form.
    """
    network, recipe = source.network, source.model.recipe
    declared = recipe.tasks[task]
    if declared.sequences_per_example == 2:
        raise NoCounterpartError(
            f"tasks.{task}.pairing: siamese",
            "a plain classifier reads one sequence",
            "--to sentence-transformers exports the vectors, --to onnx the task",
        )
    pooling, projections = network.pooling, network.projections
    if isinstance(pooling, PerTask) and isinstance(projections, PerTask):
        pooling, projections = pooling.of(task), projections.of(task)
    chain = _Chain()
    chain.add(_pooled(pooling, recipe.encoder.pooling.kind), "encoder.pooling")
    for options, module in zip(recipe.encoder.projections, projections.children(), strict=True):
        chain.add(module, f"encoder.projections: {options.kind}")
    chain.add(_head(network.head(task), task, declared.head.kind), f"tasks.{task}.head: {declared.head.kind}")
    return replace(chain.readout(), last=_logits(source, task, chain.last))


def _pooled(pooling: nn.Module, kind: str) -> nn.Module:
    if type(pooling) is Pooler:
        return nn.Sequential(pooling.dense, nn.Tanh())
    if type(pooling) is Cls:
        return nn.Identity()
    raise NoCounterpartError(f"encoder.pooling: {kind}", "the plain classes read the first token alone")


def _head(head: nn.Module, task: str, kind: str) -> nn.Module:
    if type(head) is Linear:
        return head.dense
    if type(head) is Mlp:
        return head.layers
    reason = "its LayerNorm is in none of the plain classes" if type(head) is Hidden else "no plain class has it"
    raise NoCounterpartError(f"tasks.{task}.head: {kind}", reason)


def _logits(source: Source, task: str, last: Affine) -> Affine:
    objective, network = source.model.objectives[task], source.network
    loss = source.model.tasks[task].loss.kind
    if type(objective) is SquaredError:
        return last
    if type(objective) not in (SoftmaxCrossEntropy, LogitCrossEntropy):
        raise NoCounterpartError(f"tasks.{task}.loss: {loss}", "the plain classes have a softmax or a plain score")
    threshold, temperature = network.threshold(task), network.temperatures.get(task, 1.0)
    shift = 0.0 if threshold is None else float(threshold)
    last = Affine(last.weight / temperature, (last.bias - shift) / temperature)
    if type(objective) is LogitCrossEntropy:
        return Affine(nn.functional.pad(last.weight, (0, 0, 1, 0)), nn.functional.pad(last.bias, (1, 0)))
    return last


class _Chain:
    """Dense layers one after the other, those with no activation in between made one."""

    def __init__(self) -> None:
        self._done: list[tuple[Affine, str]] = []
        self._open: Affine | None = None

    @property
    def last(self) -> Affine:
        """The dense layer behind the last activation."""
        assert self._open is not None
        return self._open

    def add(self, module: nn.Module, part: str) -> None:
        """Appends what ``module``, the recipe's ``part``, does. Raises `NoCounterpartError` at a second activation."""
        if isinstance(module, nn.Linear):
            dense = Affine.of(module)
            self._open = dense if self._open is None else self._open.then(dense)
        elif type(module) in ACTIVATIONS:
            if self._done or self._open is None:
                raise NoCounterpartError(part, "the plain classes have one hidden layer, and this would be a second")
            self._done.append((self._open, ACTIVATIONS[type(module)]))
            self._open = None
        elif isinstance(module, nn.Sequential):
            for each in module:
                self.add(each, part)
        elif not isinstance(module, nn.Dropout | nn.Identity):
            raise NoCounterpartError(part, "no plain class has it")

    def readout(self) -> Readout:
        """All of it."""
        if not self._done:
            return Readout(self.last)
        ((first, activation),) = self._done
        return Readout(self.last, first, activation)
