"""The temperatures of a model's probabilities, which its folder keeps beside the weights."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from manyhead.errors import CheckpointError
from manyhead.files import read_json

CALIBRATION = "calibration.json"


def read_temperatures(folder: Path, tasks: Collection[str]) -> dict[str, float]:
    """The temperature of each of the ``tasks`` that has one; none where the model in ``folder`` was not calibrated.

    Raises `CheckpointError` where the file is not what a run writes.
    """
    path = folder / CALIBRATION
    if not path.is_file():
        return {}
    written: Any = read_json(path)
    try:
        return {name: _temperature(name, facts["temperature"], tasks) for name, facts in written["tasks"].items()}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be used: {error}; expected a temperature above 0 for tasks of the model; copy the model "
            "again, or use another"
        ) from error


def _temperature(name: str, value: object, tasks: Collection[str]) -> float:
    if name not in tasks:
        raise ValueError(f"the model has no task '{name}'")
    if not isinstance(value, float) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"the temperature of '{name}' is {value!r}")
    return value
