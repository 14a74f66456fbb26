"""The classification head that a checkpoint of transformers brings, and what of ours computes the same.

Only names and shapes are looked at here, and config.json; no module of the checkpoint is built.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from safetensors import safe_open
from torch import Tensor

from manyhead.encoder.foreign import CONFIG, load_config_dict
from manyhead.encoder.source import weight_files
from manyhead.errors import UsageError

_ARCHITECTURE = "ForSequenceClassification"
_WORDS = "embeddings.word_embeddings.weight"
_GENERIC = re.compile(r"LABEL_\d+")


@dataclass(frozen=True)
class Layout:
    """Which ``pooling`` and ``head`` compute what a family's classification head does.

    ``names``: parameters of our head, less weight and bias, and the checkpoint's for them, the outputs' last. A head
    with an ``activation`` has one hidden layer of the encoder's width. ``only_if``: settings that it holds for.
    """

    pooling: Literal["pooler", "cls"]
    head: Literal["linear", "mlp"]
    names: Mapping[str, str]
    activation: Literal["tanh", "gelu", "relu"] | None = None
    only_if: Mapping[str, object] = field(default_factory=dict)


_BERT = Layout("pooler", "linear", {"dense": "classifier"})
_ROBERTA = Layout("cls", "mlp", {"layers.1": "classifier.dense", "layers.3": "classifier.out_proj"}, "tanh")
_ELECTRA = Layout("cls", "mlp", _ROBERTA.names, "gelu")
_DISTILBERT = Layout("cls", "mlp", {"layers.1": "pre_classifier", "layers.3": "classifier"}, "relu")
_DEBERTA = Layout(
    "cls", "mlp", {"layers.1": "pooler.dense", "layers.3": "classifier"}, "gelu", {"pooler_hidden_act": "gelu"}
)

LAYOUTS: dict[str, Layout] = {
    "bert": _BERT,
    "albert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": _ROBERTA,
    "electra": _ELECTRA,
    "distilbert": _DISTILBERT,
    "deberta": _DEBERTA,
    "deberta-v2": _DEBERTA,
}
"""By ``model_type``. Dropout aside, which does nothing in prediction, these are transformers' own heads."""


def head_text(layout: Layout, width: int) -> str:
    """The head of a layout for an encoder of ``width`` D, as a recipe has it."""
    sizes = "" if layout.activation is None else f", width: {width}, activation: {layout.activation}"
    return f"{{kind: {layout.head}{sizes}, dropout: 0.1}}"


@dataclass(frozen=True)
class Classifier:
    """A checkpoint's classification head, which reads vectors of ``width`` D.

    ``outputs`` O are classes named ``labels``, or LABEL_0 and so on where it names none (``named``); one output alone
    is a score, or the logit of the second of two classes. ``several``: each label is a yes or no of its own.
    ``layout`` is None where no head of ours computes the same.
    """

    folder: Path
    architecture: str
    width: int
    outputs: int
    labels: tuple[str, ...]
    named: bool
    several: bool
    layout: Layout | None

    def tensors(self) -> dict[str, Tensor]:
        """Its parameters under the names of our head, fp32. Raises `UsageError` where the file is damaged."""
        assert self.layout is not None
        wanted = {
            f"{theirs}.{kind}": f"{ours}.{kind}"
            for ours, theirs in self.layout.names.items()
            for kind in ("weight", "bias")
        }
        found: dict[str, Tensor] = {}
        for path in weight_files(self.folder):
            with _opened(path) as file:
                found |= {wanted[name]: file.get_tensor(name).float() for name in sorted(wanted.keys() & file.keys())}
        return found

    @property
    def last(self) -> str:
        """The name in our head of the layer that gives the outputs."""
        assert self.layout is not None
        return list(self.layout.names)[-1]


def read_classifier(folder: Path) -> Classifier | None:
    """The classification head of the checkpoint in ``folder``, None where it has none.

    Raises `UsageError` for files that are damaged, and for a head that is not as config.json says.
    """
    config = load_config_dict(folder)
    listed = config.get("architectures")
    names = [str(name) for name in cast("list[object]", listed)] if isinstance(listed, list) else []
    architecture = next((name for name in names if name.endswith(_ARCHITECTURE)), None)
    if architecture is None:
        return None
    layout = LAYOUTS.get(str(config.get("model_type")))
    if layout is not None and any(config.get(key, value) != value for key, value in layout.only_if.items()):
        layout = None
    several = config.get("problem_type") == "multi_label_classification"
    width, outputs = (0, _count(config)) if layout is None else _sizes(folder, layout, config)
    labels = _labels(config, folder, outputs)
    named = any(_GENERIC.fullmatch(label) is None for label in labels)
    return Classifier(folder, architecture, width, outputs, labels, named, several, layout)


def brings_pooler(folder: Path) -> bool:
    """Whether the checkpoint in ``folder`` has its encoder's pooler. Raises `UsageError` for damaged files."""
    names = list(_shapes(folder))
    prefix = next((name.removesuffix(_WORDS) for name in names if name.endswith(_WORDS)), "")
    return any(name.startswith(f"{prefix}pooler.") for name in names)


def _shapes(folder: Path) -> dict[str, list[int]]:
    """The shape of each weight, of which none is read."""
    shapes: dict[str, list[int]] = {}
    for path in weight_files(folder):
        with _opened(path) as file:
            shapes |= {name: file.get_slice(name).get_shape() for name in list(file.keys())}
    return shapes


def _sizes(folder: Path, layout: Layout, config: Mapping[str, Any]) -> tuple[int, int]:
    """Width and outputs of the head, by the shapes of its weights."""
    shapes = _shapes(folder)
    layers = [f"{name}.{kind}" for name in layout.names.values() for kind in ("weight", "bias")]
    missing = [name for name in layers if name not in shapes]
    if missing:
        raise UsageError(
            f"{folder}: {CONFIG} names a classification head, but its weights lack '{missing[0]}'; expected "
            f"{', '.join(layers)}; copy it again, or use another checkpoint"
        )
    outputs, width = shapes[layers[-1]][0] if shapes[layers[-1]] else 0, config.get("hidden_size", config.get("dim"))
    expected = [[width, width], [width]] * (len(layout.names) - 1) + [[outputs, width], [outputs]]
    if not outputs or not isinstance(width, int) or [shapes[name] for name in layers] != expected:
        found = ", ".join(f"{name} {shapes[name]}" for name in layers)
        raise UsageError(
            f"{folder}: the classification head does not fit an encoder of width {width}: {found}; copy it again, or "
            "use another checkpoint"
        )
    return width, outputs


def _count(config: Mapping[str, Any]) -> int:
    named, count = config.get("id2label"), config.get("num_labels")
    return len(cast("dict[str, object]", named)) if isinstance(named, dict) else count if isinstance(count, int) else 2


def _labels(config: Mapping[str, Any], folder: Path, outputs: int) -> tuple[str, ...]:
    """The names of the outputs in their order; generic ones where config.json has none."""
    written = config.get("id2label")
    if written is None:  # transformers leaves out what is its default
        return tuple(f"LABEL_{number}" for number in range(outputs))
    named = cast("dict[str, object]", written) if isinstance(written, dict) else {}
    labels = [named.get(str(number)) for number in range(outputs)]
    if len(named) != outputs or not all(isinstance(label, str | int) for label in labels):
        raise UsageError(
            f"{folder / CONFIG}: id2label does not name the {outputs} outputs of the classification head; expected the "
            f"names of 0 to {outputs - 1}; correct it, or use another checkpoint"
        )
    return tuple(str(label) for label in labels)


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except Exception as error:  # safetensors raises its own, and OSError
        raise UsageError(f"{path}: cannot be read: {error}; expected safetensors; copy it again") from error
