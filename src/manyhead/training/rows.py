"""The rows of the tasks' Jacobian: one gradient a task for each shared parameter."""

from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor

CHUNK = 1 << 20
"""Numbers a task, about, that are worked on at once: those of a few tasks stay in a processor's cache."""


class Rows:
    """A gradient for each task of a step and each shared parameter, as far as the step touched them.

    Embeddings' are kept sparse. Memory is used again in the next step, also that of the combined gradients.
    """

    def __init__(self) -> None:
        self.tasks: tuple[str, ...] = ()
        self._whole: dict[Tensor, dict[str, Tensor]] = {}
        self._sparse: dict[Tensor, dict[str, list[Tensor]]] = {}
        self._products: dict[tuple[Tensor, str], Tensor] = {}
        self._work = torch.empty(0)
        self._sums = torch.empty(0)

    def start(self, tasks: Sequence[str]) -> None:
        """Begins a step of ``tasks``; what was added before is forgotten."""
        self.tasks = tuple(tasks)
        self._whole = {}
        self._sparse = {}

    def add(self, parameter: Tensor, task: str, gradient: Tensor) -> None:
        """Adds a gradient, sparse or not, which is kept and may be changed. Sums are fp32."""
        if gradient.is_sparse:
            self._sparse.setdefault(parameter, {}).setdefault(task, []).append(gradient)
            return
        found = self._whole.setdefault(parameter, {})
        before = found.get(task)
        found[task] = gradient if before is None else before.float().add_(gradient)

    def add_product(self, parameter: Tensor, task: str, left: Tensor, right: Tensor) -> None:
        """Adds the gradient (G, F) that is the product of ``left`` (N, G), transposed, and ``right`` (N, F)."""
        if task in self._whole.get(parameter, ()):
            self.add(parameter, task, left.t() @ right)
            return
        memory = self._products.get((parameter, task))
        if memory is None or memory.dtype != left.dtype:
            memory = self._products[parameter, task] = torch.empty_like(parameter, dtype=left.dtype)
        self.add(parameter, task, torch.mm(left.t(), right, out=memory))

    def gradient(self, parameter: Tensor, task: str) -> Tensor | None:
        """A copy of one task's gradient, in the parameter's shape; None where nothing was added."""
        given = [*self._sparse.get(parameter, {}).get(task, ())]
        if (whole := self._whole.get(parameter, {}).get(task)) is not None:
            given.append(whole)
        if not given:
            return None
        total = torch.zeros_like(parameter)
        for each in given:
            total += each
        return total

    def gramian(self) -> Tensor:
        """Inner products (K, K) of the tasks' gradients, float64, on the CPU; sums of fp32 ones."""
        self._join()
        blocks = (block for _, block in self._blocks())
        embeddings = (self._compact(parameter)[1].flatten(1) for parameter in self._sparse)
        size = len(self.tasks)
        products = [
            torch.cat([torch.mv(block[row:], block[row]) for row in range(size)]) for block in chain(blocks, embeddings)
        ]
        total = torch.zeros(size, size, dtype=torch.float64)
        if products:
            upper = torch.triu_indices(size, size).unbind()
            total[upper] = torch.stack(products).cpu().double().sum(0)
            total.t()[upper] = total[upper]
        return total

    def combine(self, weights: Tensor) -> None:
        """Leaves the sum of the gradients, each task's times its weight (K,), in the parameters' ``grad``.

        A ``grad`` that is there, as embeddings keep one of zeros, is filled. What no task touched is left alone.
        """
        self._join()
        start = 0
        if self._whole:
            size = sum(parameter.numel() for parameter in self._whole)
            self._sums = _room(self._sums, size, next(iter(self._whole)))
        for parameters, block in self._blocks():
            total = self._sums[start : start + block.shape[1]]
            start += block.shape[1]
            torch.mv(block.t(), weights.to(block), out=total)
            for parameter, part in zip(parameters, total.split([each.numel() for each in parameters]), strict=True):
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

    def _blocks(self) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Some parameters at a time, and their gradients (K, N) in fp32. Each block takes the last one's memory."""
        chunks: list[list[Tensor]] = []
        size = CHUNK
        for parameter in self._whole:
            if size + parameter.numel() > CHUNK:
                chunks.append([])
                size = 0
            chunks[-1].append(parameter)
            size += parameter.numel()
        sizes = [sum(parameter.numel() for parameter in chunk) for chunk in chunks]
        if not chunks:
            return
        self._work = _room(self._work, len(self.tasks) * max(sizes), chunks[0][0])
        for chunk, size in zip(chunks, sizes, strict=True):
            block = self._work[: len(self.tasks) * size].view(len(self.tasks), size)
            for task, row in zip(self.tasks, block, strict=True):
                start = 0
                for parameter in chunk:
                    place = row[start : start + parameter.numel()]
                    start += parameter.numel()
                    gradient = self._whole[parameter].get(task)
                    if gradient is None:
                        place.zero_()
                    else:
                        place.copy_(gradient.flatten())
            yield chunk, block

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
