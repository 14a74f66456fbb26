"""Modules that each task has one of, under names that tell the task."""

from collections.abc import Iterable, Mapping

from torch import nn

_MARK = "task_"


class PerTask(nn.Module):
    """One module a task; the task is a part of its parameters' names."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for task, module in modules.items():
            self.add_module(task_key(task), module)

    def of(self, task: str) -> nn.Module:
        """The module of ``task``; KeyError where it has none."""
        module = self._modules[task_key(task)]
        assert module is not None
        return module

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that have one."""
        return tuple(name.removeprefix(_MARK) for name in self._modules)


def task_key(task: str) -> str:
    """The name of a task's module: one that no attribute of a module has."""
    return _MARK + task


def task_in(name: str, tasks: Iterable[str]) -> str | None:
    """The task among ``tasks`` whose module the parameter ``name`` is in; None for those of all tasks."""
    parts = set(name.split("."))
    return next((task for task in tasks if task_key(task) in parts), None)
