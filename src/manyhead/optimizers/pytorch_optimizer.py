"""Any optimiser of the package pytorch_optimizer, by its name."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_optimizer
import torch

from manyhead.errors import UsageError
from manyhead.optimizers import RESERVED_OPTIONS, PytorchOptimizerOptions
from manyhead.optimizers.groups import Group, as_dicts
from manyhead.optimizers.resumption import check_resumes


def build(options: PytorchOptimizerOptions, groups: Sequence[Group]) -> torch.optim.Optimizer:
    """The optimiser, once it has shown that it resumes exactly.

    Raises `UsageError` where it has no such option or does not take its value, needs one more, has no decay and is
    given one, or does not resume (`manyhead.optimizers.resumption`).
    """
    make_from: Callable[..., torch.optim.Optimizer] = getattr(pytorch_optimizer, options.name)
    settings = _settings(options, inspect.signature(make_from))

    def make(groups: Sequence[Group]) -> torch.optim.Optimizer:
        members = as_dicts(groups)
        for member in members if "weight_decay" not in settings else ():
            del member["weight_decay"]
        try:
            return make_from(members, **settings)
        except Exception as error:  # whatever a constructor may raise
            raise UsageError(
                f"optimizer {options.name}: {type(error).__name__}: {error}; change optimizer.options"
            ) from error

    check_resumes(options.name, make, groups)
    return make(groups)


def _settings(options: PytorchOptimizerOptions, signature: inspect.Signature) -> dict[str, Any]:
    """What the constructor is called with, beside the parameters."""
    named = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    choices = [name for name in named if name not in RESERVED_OPTIONS]
    if unknown := [name for name in options.options if name not in choices]:
        raise UsageError(
            f"optimizer.options: {options.name} has no {', '.join(unknown)}; expected some of {', '.join(choices)}"
        )
    needed = [name for name in choices if named[name].default is inspect.Parameter.empty]
    if missing := [name for name in needed if name not in options.options]:
        raise UsageError(f"optimizer.options: {options.name} needs {', '.join(missing)}; add it")
    settings = {name: _tuples(value) for name, value in options.options.items()}
    if "weight_decay" in named:
        return {**settings, "lr": options.lr, "weight_decay": options.weight_decay}
    if options.weight_decay:
        raise UsageError(f"optimizer.weight_decay: {options.name} has no weight decay; leave it out")
    return {**settings, "lr": options.lr}


def _tuples(value: Any) -> Any:
    """Tuples in place of lists, which is what constructors expect of betas and the like."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
