"""The rows of the tasks' Jacobian: one gradient a task for each shared parameter.

Axes: K tasks, N numbers of a parameter or of several one after the other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor

CHUNK = 3 << 20
"""Numbers of all tasks, about, that are worked on at once: they stay in a processor's last cache."""

_PIECE = 4096
"""Numbers whose products are summed at once."""


class TaskRows(Protocol):
    """Takes the gradients of the ``tasks`` of a step: see `Rows`."""

    tasks: tuple[str, ...]

    def add(self, parameter: Tensor, task: str, gradient: Tensor) -> None:
        """See `Rows.add`."""
        ...

    def add_stacked(self, parameters: Sequence[Tensor], gradients: Tensor) -> None:
        """See `Rows.add_stacked`."""
        ...

    def add_products(
        self, parameters: Sequence[Tensor], left: Tensor, right: Tensor, spans: Mapping[str, slice]
    ) -> None:
        """See `Rows.add_products`."""
        ...


@dataclass(frozen=True)
class _Stack:
    """The gradients (K, G, ...) of ``parameters`` that lie one below the other, and their inner products, if known."""

    parameters: tuple[Tensor, ...]
    gradients: Tensor
    inner: Tensor | None

    def of(self, parameter: Tensor) -> Tensor:
        """The gradients (K, ...) of one of the parameters."""
        parts = self.gradients.split([len(each) for each in self.parameters], dim=1)
        return next(part for each, part in zip(self.parameters, parts, strict=True) if each is parameter)


class Rows:
    """A gradient for each task of a step and each shared parameter, as far as the step touched them.

    Embeddings' are kept sparse. Memory is used again in the next step, also that of the combined gradients.
    """

    def __init__(self) -> None:
        self.tasks: tuple[str, ...] = ()
        self._whole: dict[Tensor, dict[str, Tensor]] = {}
        self._sparse: dict[Tensor, dict[str, list[Tensor]]] = {}
        self._stacks: dict[Tensor, _Stack] = {}
        self._products: dict[Tensor, Tensor] = {}
        self._work = torch.empty(0)
        self._sums = torch.empty(0)

    def start(self, tasks: Sequence[str]) -> None:
        """Begins a step of ``tasks``; what was added before is forgotten."""
        self.tasks = tuple(tasks)
        self._whole = {}
        self._sparse = {}
        self._stacks = {}

    def add(self, parameter: Tensor, task: str, gradient: Tensor) -> None:
        """Adds a gradient, sparse or not, which is kept and may be changed. Sums are fp32."""
        self._unstack(parameter)
        if gradient.is_sparse:
            self._sparse.setdefault(parameter, {}).setdefault(task, []).append(gradient)
            return
        found = self._whole.setdefault(parameter, {})
        before = found.get(task)
        found[task] = gradient if before is None else before.float().add_(gradient)

    def add_stacked(self, parameters: Sequence[Tensor], gradients: Tensor) -> None:
        """Adds gradients (K, G, ...) of all tasks for ``parameters`` that lie one below the other; they are kept."""
        if any(self._is_known(parameter) for parameter in parameters):
            parts = gradients.split([len(parameter) for parameter in parameters], dim=1)
            for parameter, part in zip(parameters, parts, strict=True):
                for task, gradient in zip(self.tasks, part, strict=True):
                    self.add(parameter, task, gradient)
            return
        # While it lies in the processor's cache, a second look at a large gradient costs little.
        inner = self._inner(gradients.flatten(1)) if gradients.numel() >= CHUNK // 8 else None
        stack = _Stack(tuple(parameters), gradients, inner)
        self._stacks |= dict.fromkeys(parameters, stack)

    def add_products(
        self, parameters: Sequence[Tensor], left: Tensor, right: Tensor, spans: Mapping[str, slice]
    ) -> None:
        """Adds the gradients of matrices (G, F) that lie one below the other.

        A task's are the product of its ``spans`` of ``left`` (T, G), transposed, and of ``right`` (T, F).
        """
        if spans.keys() != set(self.tasks) or any(self._is_known(parameter) for parameter in parameters):
            for task, span in spans.items():
                product = left[span].t() @ right[span]
                for parameter, part in zip(parameters, product.split([len(each) for each in parameters]), strict=True):
                    self.add(parameter, task, part)
            return
        shape = (len(self.tasks), left.shape[1], right.shape[1])
        memory = self._products.get(parameters[0])
        if memory is None or memory.dtype != left.dtype or memory.shape != shape:
            memory = self._products[parameters[0]] = torch.empty(shape, dtype=left.dtype, device=left.device)
        for task, place in zip(self.tasks, memory, strict=True):
            torch.mm(left[spans[task]].t(), right[spans[task]], out=place)
        self.add_stacked(parameters, memory)

    def gradient(self, parameter: Tensor, task: str) -> Tensor | None:
        """A copy of one task's gradient, in the parameter's shape; None where nothing was added."""
        given = [*self._sparse.get(parameter, {}).get(task, ())]
        if (whole := self._whole.get(parameter, {}).get(task)) is not None:
            given.append(whole)
        if (stack := self._stacks.get(parameter)) is not None:
            given.append(stack.of(parameter)[self.tasks.index(task)])
        if not given:
            return None
        total = torch.zeros_like(parameter)
        for each in given:
            total += each
        return total

    def gramian(self) -> Tensor:
        """Inner products (K, K) of the tasks' gradients, float64, on the CPU; sums of fp32 ones."""
        self._join()
        products = [stack.inner for stack in self._unique() if stack.inner is not None]
        products += [self._inner(block) for block in self._blocks(unit for unit in self._units() if unit.inner is None)]
        products += [self._inner(self._compact(parameter)[1].flatten(1)) for parameter in self._sparse]
        if not products:
            return torch.zeros(len(self.tasks), len(self.tasks), dtype=torch.float64)
        return torch.stack(products).cpu().double().sum(0)

    def combine(self, weights: Tensor) -> None:
        """Leaves the sum of the gradients, each task's times its weight (K,), in the parameters' ``grad``.

        A ``grad`` that is there, as embeddings keep one of zeros, is filled. What no task touched is left alone.
        """
        self._join()
        parameters = [*(parameter for stack in self._unique() for parameter in stack.parameters), *self._whole]
        sizes = [parameter.numel() for parameter in parameters]
        self._sums = _room(self._sums, sum(sizes), like=weights if not parameters else parameters[0])
        start = 0
        for block in self._blocks(self._units()):
            torch.mv(block.t(), weights.to(block), out=self._sums[start : start + block.shape[1]])
            start += block.shape[1]
        for parameter, part in zip(parameters, self._sums[: sum(sizes)].split(sizes), strict=True):
            if parameter.grad is None:
                parameter.grad = part.view_as(parameter)
            else:
                parameter.grad.copy_(part.view_as(parameter))
        for parameter in self._sparse:
            ids, block = self._compact(parameter)
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            total = torch.mv(block.flatten(1).t(), weights.to(block))
            parameter.grad.index_copy_(0, ids, total.view(len(ids), -1))

    def _unique(self) -> list[_Stack]:
        return list({id(stack): stack for stack in self._stacks.values()}.values())

    def _units(self) -> Iterator[_Stack]:
        """All gradients but embeddings', those of each parameter once, stacked as they are asked for."""
        yield from self._unique()
        for parameter, found in self._whole.items():
            zero = torch.zeros((), device=parameter.device).expand_as(parameter)
            yield _Stack((parameter,), torch.stack([found.get(task, zero).float() for task in self.tasks]), None)

    def _blocks(self, units: Iterable[_Stack]) -> Iterator[Tensor]:
        """The gradients (K, N) of ``units`` one after the other, fp32. Each block takes the last one's memory."""
        waiting: list[Tensor] = []
        room = self._chunk()
        for rows in chain.from_iterable(unit.gradients.flatten(1).split(room, dim=1) for unit in units):
            if waiting and sum(each.shape[1] for each in waiting) + rows.shape[1] > room:
                yield self._joined(waiting)
                waiting = []
            waiting.append(rows)
        if waiting:
            yield self._joined(waiting)

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Parts (K, ...) side by side, in fp32."""
        sizes = [part.shape[1] for part in parts]
        block = self._room_for(sum(sizes), parts[0])
        for place, part in zip(block.split(sizes, dim=1), parts, strict=True):
            place.copy_(part)
        return block

    def _inner(self, rows: Tensor) -> Tensor:
        """Inner products (K, K) of ``rows`` (K, N), fp32 sums of pieces."""
        found: list[Tensor] = []
        for chunk in rows.split(self._chunk(), dim=1):
            pieces, rest = divmod(chunk.shape[1], _PIECE)
            block = chunk
            if chunk.dtype != torch.float32:
                block = self._room_for(chunk.shape[1], chunk).copy_(chunk)
            if pieces:
                whole = block[:, : pieces * _PIECE].view(len(rows), pieces, _PIECE).transpose(0, 1)
                found.append(torch.bmm(whole, whole.transpose(1, 2)).sum(0))
            if rest:
                found.append(block[:, -rest:] @ block[:, -rest:].t())
        return found[0] if len(found) == 1 else torch.stack(found).sum(0)

    def _chunk(self) -> int:
        """Numbers a task that are worked on at once."""
        return max(1, CHUNK // len(self.tasks))

    def _room_for(self, size: int, like: Tensor) -> Tensor:
        """Memory (K, ``size``) that holds until it is asked for again."""
        self._work = _room(self._work, len(self.tasks) * size, like)
        return self._work[: len(self.tasks) * size].view(len(self.tasks), size)

    def _compact(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        """The ids (U,) of the rows that any task touched, and the gradients there (K, U, D)."""
        given = self._sparse[parameter]
        ids = torch.cat([each._indices()[0] for found in given.values() for each in found]).unique()
        block = parameter.new_zeros(len(self.tasks), len(ids), parameter.shape[1])
        for task, row in zip(self.tasks, block, strict=True):
            for each in given.get(task, ()):
                places = torch.searchsorted(ids, each._indices()[0])
                row.index_add_(0, places, each._values().to(row.dtype))
        return ids, block

    def _is_known(self, parameter: Tensor) -> bool:
        return parameter in self._stacks or parameter in self._whole or parameter in self._sparse

    def _unstack(self, parameter: Tensor) -> None:
        """Takes a stack apart, so that its parameters' gradients can grow each for itself."""
        stack = self._stacks.get(parameter)
        if stack is None:
            return
        for each in stack.parameters:
            del self._stacks[each]
            self._whole[each] = dict(zip(self.tasks, stack.of(each).float(), strict=True))

    def _join(self) -> None:
        """Where some gradients of a matrix are whole, all are."""
        for parameter in self._whole.keys() & self._sparse.keys():
            for task, found in self._sparse.pop(parameter).items():
                for each in found:
                    self.add(parameter, task, torch.zeros_like(parameter).add_(each))


def _room(memory: Tensor, size: int, like: Tensor) -> Tensor:
    """``memory`` if it has room for ``size`` numbers, else new one."""
    if memory.numel() >= size and memory.device == like.device:
        return memory
    return torch.empty(size, dtype=torch.float32, device=like.device)
