"""What is exported, what a format wrote, and the errors of both."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyhead.errors import UsageError
from manyhead.export import ONNX_INSTEAD
from manyhead.inference.model_folder import ENCODER, model_in
from manyhead.inference.outputs import Floats
from manyhead.inference.predictor import Model
from manyhead.model import MultiTaskModel

if TYPE_CHECKING:
    from manyhead.export.check import Parity

TOLERANCE = 1e-5
"""Largest difference, in fp32, of a probability, or of a score or vector relative to its size where that is above 1."""

Texts = Sequence[tuple[str, ...]]


class NoCounterpartError(UsageError):
    """A part of the model, the recipe's key and its value, that a format cannot express."""

    def __init__(self, part: str, reason: str, instead: str = ONNX_INSTEAD) -> None:
        super().__init__(f"{part}: {reason}; {instead}")


@dataclass(frozen=True)
class Source:
    """A model to export: in fp32, on the CPU. ``folder`` is the run or model folder it came from.

    ``tasks`` are those asked for, ``named`` whether they were named one by one. ``texts`` are what is compared, by
    task. ``options`` are those of single formats, by name.
    """

    model: Model
    folder: Path
    tasks: tuple[str, ...]
    texts: Mapping[str, Texts]
    named: bool = False
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def network(self) -> MultiTaskModel:
        """The torch module."""
        return self.model.network

    @property
    def encoder_files(self) -> Path:
        """The folder with the encoder's configuration and tokenizer."""
        return model_in(self.folder) / ENCODER


@dataclass(frozen=True)
class Written:
    """One thing to read back: ``folder``, below that of the export, and what it should say of the ``texts``.

    ``reader`` is the program that does, a file in ``readers``; it is given ``options`` too. ``expected`` (E, O) are
    probabilities where ``classes``, else scores or vectors. A ``tolerance`` of None is told, never wrong. ``score``, if
    given, makes one number of what is said, the ``metric``, for the model and for the export.
    """

    name: str
    folder: str
    reader: str
    texts: Texts
    expected: Floats
    classes: bool = False
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tolerance: float | None = TOLERANCE
    needs_manyhead: bool = False
    metric: str = ""
    score: Callable[[Any], float] | None = None


@dataclass(frozen=True)
class Export:
    """What a format wrote. ``left_out`` says by task why it is not there; ``notes`` are lines for the user.

    ``finish`` is told what was found when it was compared, and may add that to the folder; it returns warnings.
    """

    written: Sequence[Written]
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: Sequence[str] = ()
    finish: "Callable[[Path, Sequence[Parity]], Sequence[str]] | None" = None


def require(module: str, package: str, purpose: str) -> None:
    """Raises `UsageError` with the command that installs ``package`` where ``module`` is not there."""
    if importlib.util.find_spec(module) is None:
        raise UsageError(f"{purpose} needs {package}; run pip install 'manyhead[export]'")


def expected_outputs(source: Source, task: str) -> Floats:
    """What the model itself says of a task's texts: probabilities (E, C), or scores (E, 1)."""
    found, _ = source.model.predict_arrays(task, source.texts[task])
    if found.probabilities is not None:
        return found.probabilities
    assert found.scores is not None
    return found.scores[:, None]
