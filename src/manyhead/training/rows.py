"""The rows of the tasks' Jacobian: one gradient a task for each shared parameter."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

CHUNK = 1 << 20
"""Numbers a task, about, that are worked on at once: those of a few tasks stay in a processor's cache."""


class Rows:
    """A gradient for each of ``tasks`` and each shared parameter, as far as a step touched them.

    Embeddings are kept as the ids of the touched rows (U,) and their gradients (U, D), as often as they were touched.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = tuple(tasks)
        self._whole: dict[nn.Parameter, dict[str, Tensor]] = {}
        self._touched: dict[nn.Parameter, dict[str, list[Tensor]]] = {}

    def add(self, parameter: nn.Parameter, task: str, gradient: Tensor) -> None:
        """Adds a gradient, sparse or not, which is kept and may be changed. Sums are fp32."""
        if gradient.is_sparse:
            self._touched.setdefault(parameter, {}).setdefault(task, []).append(gradient)
            return
        found = self._whole.setdefault(parameter, {})
        before = found.get(task)
        found[task] = gradient if before is None else before.float().add_(gradient)

    def gradient(self, parameter: nn.Parameter, task: str) -> Tensor | None:
        """A copy of one task's gradient, in the parameter's shape; None where nothing was added."""
        given = [*self._touched.get(parameter, {}).get(task, ())]
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
        total = torch.zeros(len(self.tasks), len(self.tasks), dtype=torch.float64)
        for _, block in self._blocks():
            total += (block @ block.t()).to("cpu", torch.float64)
        for parameter in self._touched:
            _, block = self._compact(parameter)
            flat = block.flatten(1)
            total += (flat @ flat.t()).to("cpu", torch.float64)
        return total

    def combine(self, weights: Tensor) -> None:
        """Leaves the sum of the gradients, each task's times its weight (K,), in the parameters' ``grad``.

        An embedding's ``grad`` that is there, all 0, is used. Parameters that no task touched are left alone.
        """
        self._join()
        for parameters, block in self._blocks():
            total = torch.mv(block.t(), weights.to(block))
            for parameter, part in zip(parameters, total.split([each.numel() for each in parameters]), strict=True):
                parameter.grad = part.view_as(parameter)
        for parameter in self._touched:
            ids, block = self._compact(parameter)
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            total = torch.mv(block.flatten(1).t(), weights.to(block))
            parameter.grad.index_copy_(0, ids, total.view(len(ids), -1))

    def _blocks(self) -> Iterator[tuple[list[nn.Parameter], Tensor]]:
        """Some parameters at a time, and their gradients (K, N) in fp32. Each block takes the last one's memory."""
        chunks: list[list[nn.Parameter]] = []
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
        memory = torch.empty(len(self.tasks) * max(sizes), device=chunks[0][0].device)
        for chunk, size in zip(chunks, sizes, strict=True):
            block = memory[: len(self.tasks) * size].view(len(self.tasks), size)
            for task, row in zip(self.tasks, block, strict=True):
                torch.cat([self._flat(parameter, task) for parameter in chunk], out=row)
            yield chunk, block

    def _flat(self, parameter: nn.Parameter, task: str) -> Tensor:
        gradient = self._whole[parameter].get(task)
        return parameter.new_zeros(parameter.numel()) if gradient is None else gradient.flatten()

    def _compact(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
        """The ids (U,) of the rows that any task touched, and the gradients there (K, U, D)."""
        given = self._touched[parameter]
        ids = torch.cat([each._indices()[0] for found in given.values() for each in found]).unique()
        block = parameter.new_zeros(len(self.tasks), len(ids), parameter.shape[1])
        for task, row in zip(self.tasks, block, strict=True):
            for each in given.get(task, ()):
                places = torch.searchsorted(ids, each._indices()[0])
                row.index_add_(0, places, each._values().to(row.dtype))
        return ids, block

    def _join(self) -> None:
        """Where some gradients of a matrix are whole, all are."""
        for parameter in self._whole.keys() & self._touched.keys():
            for task, found in self._touched.pop(parameter).items():
                for each in found:
                    self.add(parameter, task, torch.zeros_like(parameter).add_(each))
