"""An optimiser's state as tensors and JSON, and back: what checkpoints keep of it.

The state is what ``state_dict`` gives. Tensors of a parameter are kept by PARAMETER/FIELD; all else (counters, numbers
of groups, nested tuples, lists and dicts) becomes JSON, in which each tensor is named by its key. The learning rates
are left out: a schedule sets them.
"""

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from manyhead.errors import CheckpointError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_SEQUENCES: dict[str, type[tuple[Any, ...] | list[Any] | deque[Any]]] = {"tuple": tuple, "list": list, "deque": deque}


def saved_state(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]
) -> tuple[dict[str, Tensor], dict[str, Json]]:
    """The optimiser's tensors, on the CPU, by key, and everything else it keeps.

    ``named``: all parameters it may hold, by name. Raises `CheckpointError` where it keeps what neither can hold.
    """
    state = optimizer.state_dict()
    names = _names(optimizer, named)
    pack = _Pack(type(optimizer).__name__)
    fields_of = state.pop("state")
    for index, fields in fields_of.items():
        for field, value in fields.items() if index in names else ():
            if isinstance(value, Tensor):
                pack.add(value, f"{names[index]}/{field}")
    of_parameters: dict[str, Json] = {}
    shared: dict[str, Json] = {}
    for index, fields in fields_of.items():
        if index not in names:
            shared[index] = pack.value(fields, f"shared/{index}")
        elif rest := {field: value for field, value in fields.items() if not isinstance(value, Tensor)}:
            of_parameters[names[index]] = pack.value(rest, names[index])
    groups: list[Json] = []
    for number, group in enumerate(state.pop("param_groups")):
        settings = {key: value for key, value in group.items() if key not in ("params", "lr")}
        groups.append(pack.value(settings, f"groups/{number}"))
    numbers: dict[str, Json] = {
        "parameters": of_parameters,
        "shared": shared,
        "groups": groups,
        "others": pack.value(state, "others"),
        "layouts": pack.layouts,
    }
    return dict(sorted(pack.tensors.items())), numbers


def restore_state(
    optimizer: torch.optim.Optimizer,
    named: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, Any],
) -> None:
    """Puts back what `saved_state` gave; the rates stay as they are.

    Raises `CheckpointError` where it is the state of another optimiser or of other parameters.
    """
    index_of = {name: index for index, name in _names(optimizer, named).items()}
    groups = optimizer.state_dict()["param_groups"]
    rates = [group["lr"] for group in optimizer.param_groups]
    if len(numbers["groups"]) != len(groups):
        raise CheckpointError(f"state of {len(numbers['groups'])} groups of parameters; expected {len(groups)}")
    left = {key: _in_memory(tensor, numbers["layouts"].get(key)) for key, tensor in tensors.items()}
    state: dict[int | str, Any] = {name: _unpacked(value, left) for name, value in numbers["shared"].items()}
    others = _unpacked(numbers["others"], left)
    saved_groups = [
        {**_unpacked(saved, left), "params": group["params"], "lr": rate}
        for saved, group, rate in zip(numbers["groups"], groups, rates, strict=True)
    ]
    fields = {name: _unpacked(value, left) for name, value in numbers["parameters"].items()}
    for key, tensor in left.items():
        name, _, field = key.partition("/")
        fields.setdefault(name, {})[field] = tensor
    for name, values in fields.items():
        if name not in index_of:
            raise CheckpointError(f"state of '{name}', which the optimiser does not train")
        state[index_of[name]] = values
    optimizer.load_state_dict({**others, "state": state, "param_groups": saved_groups})


def _names(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> dict[int, str]:
    """The name of each parameter, by its number in ``state_dict``."""
    name_of = {parameter: name for name, parameter in named.items()}
    members = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {index: name_of[parameter] for index, parameter in enumerate(members)}


def _in_memory(tensor: Tensor, order: list[int] | None) -> Tensor:
    """A tensor out of a file as it was in memory, its dimensions in ``order`` there.

    It is copied: the last bits of products of matrices also depend on where in memory they begin.
    """
    copied = tensor.clone()
    return copied if order is None else copied.permute(sorted(range(len(order)), key=order.__getitem__))


class _Pack:
    """Collects tensors by key while values become JSON."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.tensors: dict[str, Tensor] = {}
        self.layouts: dict[str, Json] = {}
        self._storages: set[int] = set()

    def add(self, value: Tensor, key: str) -> str:
        """Keeps a tensor and gives the key it is kept by. Two that share memory are kept apart.

        Files hold tensors in the order of their dimensions only, but products of matrices depend, in their last bits,
        on the order in memory: where it is another one, it is kept too.
        """
        while key in self.tensors:
            key += "'"
        kept = value.detach().cpu()
        order = sorted(range(kept.ndim), key=kept.stride, reverse=True)
        if not kept.is_contiguous() and kept.permute(order).is_contiguous():
            kept = kept.permute(order)
            self.layouts[key] = cast("list[Json]", order)
        kept = kept.contiguous()
        storage = kept.untyped_storage().data_ptr()
        self.tensors[key] = kept.clone() if storage in self._storages else kept
        self._storages.add(storage)
        return key

    def value(self, value: object, key: str) -> Json:
        """A value as JSON. What JSON has no word for becomes an object whose first key names its type."""
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, Tensor):
            return {"tensor": self.add(value, key)}
        if type(value) in (dict, defaultdict):
            pairs = cast("dict[object, object]", value).items()
            return {"dict": [[self.value(name, key), self.value(item, f"{key}/{name}")] for name, item in pairs]}
        for kind, sequence in _SEQUENCES.items():
            if type(value) is sequence:
                items = enumerate(cast("Iterable[object]", value))
                packed: dict[str, Json] = {kind: [self.value(item, f"{key}/{place}") for place, item in items]}
                return {**packed, "maxlen": value.maxlen} if isinstance(value, deque) else packed
        raise CheckpointError(f"{self.owner} keeps a {type(value).__name__} ('{key}'), which cannot be saved")


def _unpacked(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value that became ``value``; its tensors are taken out of ``tensors``."""
    if not isinstance(value, dict):
        return value
    kind = next(iter(value))
    content = value[kind]
    if kind == "float":
        return float(content)
    if kind == "dtype":
        return getattr(torch, content)
    if kind == "tensor":
        return tensors.pop(content)
    if kind == "dict":
        return {_unpacked(name, tensors): _unpacked(item, tensors) for name, item in content}
    items = [_unpacked(item, tensors) for item in content]
    return deque(items, value["maxlen"]) if kind == "deque" else _SEQUENCES[kind](items)
