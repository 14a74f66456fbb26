"""Vectors of single texts as folders that ``SentenceTransformer`` loads: encoder, pooling, projections.

The files are those that all its versions read.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manyhead.encoder.per_task import PerTask
from manyhead.encoder.pooling import Pooler
from manyhead.errors import UsageError
from manyhead.export.encoders import plain_encoder, save_base_model, save_plain_tokenizer
from manyhead.export.source import Export, NoCounterpartError, Source, Texts, Written, require
from manyhead.heads import CosineHead
from manyhead.heads.cosine import Cosine
from manyhead.inference.outputs import Floats
from manyhead.model import save_tensors
from manyhead.recipe.schema import Task

_READER = "sentence_transformer.py"
_POOLINGS = {"cls": "cls_token", "pooler": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}
_ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.Tanh: "torch.nn.modules.activation.Tanh",
    nn.ReLU: "torch.nn.modules.activation.ReLU",
    nn.GELU: "torch.nn.modules.activation.GELU",
    nn.Identity: "torch.nn.modules.linear.Identity",
}
_TYPES = "sentence_transformers.models"


def write(source: Source, folder: Path) -> Export:
    """A folder for each siamese task, or each one that was named."""
    require("sentence_transformers", "sentence-transformers", "--to sentence-transformers")
    tasks = [name for name in source.tasks if source.named or source.model.tasks[name].sequences_per_example == 2]
    if not tasks:
        raise UsageError(
            "no task of this model is siamese, so its vectors were trained for no comparison; expected a task with "
            f"pairing: siamese; name one of {', '.join(source.tasks)} by --task to export the vectors it reads"
        )
    notes: list[str] = []
    written: list[Written] = []
    for task in tasks:
        save_task(source, task, folder / task)
        texts = single_texts(source.texts[task])
        written.append(Written(task, task, _READER, texts, task_vectors(source, task, texts)))
        notes += _note(task, source.model.tasks[task])
    return Export(written, notes=notes)


def save_task(source: Source, task: str, folder: Path) -> None:
    """Writes the vectors of one task into the new ``folder``. Raises `NoCounterpartError`."""
    kind = source.model.recipe.encoder.pooling.kind
    if kind not in _POOLINGS:
        raise NoCounterpartError(f"encoder.pooling: {kind}", "sentence-transformers has no such pooling")
    encoder = plain_encoder(source, task)
    layers = _dense_layers(source, task)
    folder.mkdir()
    save_base_model(encoder, folder)
    save_plain_tokenizer(source, folder)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": source.model.recipe.encoder.max_tokens})
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine", "prompts": {}})
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{mode}": mode == _POOLINGS[kind] for mode in ("cls_token", "mean_tokens", "max_tokens")}
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": encoder.width, **modes})
    for dense, activation in layers:
        name = f"{len(modules)}_Dense"
        modules.append((name, "Dense"))
        _save_dense(folder / name, dense, activation)
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"{_TYPES}.{kind}"}
        for number, (path, kind) in enumerate(modules)
    ]
    _write(folder / "modules.json", listed)


def task_vectors(source: Source, task: str, texts: Texts) -> Floats:
    """What the model itself makes of single texts, (E, D): behind the MLP of a cosine head, where it has one."""
    vectors = source.model.embed([text for (text,) in texts], task)
    with torch.inference_mode():
        return _own_layers(source, task)(torch.from_numpy(vectors)).numpy()


def single_texts(texts: Texts) -> Texts:
    """Each text alone, once."""
    return [(text,) for text in dict.fromkeys(text for row in texts for text in row)]


def _own_layers(source: Source, task: str) -> nn.Module:
    """What a cosine head does to each vector; nothing for other heads, which read the vectors as they are."""
    head = source.network.head(task)
    return head.layers if isinstance(head, Cosine) else nn.Identity()


def _dense_layers(source: Source, task: str) -> list[tuple[nn.Linear, nn.Module]]:
    """All dense layers behind the pooled states, each with its activation."""
    pooling, projections = source.network.pooling, source.network.projections
    if isinstance(pooling, PerTask) and isinstance(projections, PerTask):
        pooling, projections = pooling.of(task), projections.of(task)
    pooler = [pooling.dense, nn.Tanh()] if isinstance(pooling, Pooler) else []
    found: list[tuple[nn.Linear, nn.Module]] = []
    for module in _flat([*pooler, projections, _own_layers(source, task)]):
        if isinstance(module, nn.Linear):
            found.append((module, nn.Identity()))
        elif type(module) in _ACTIVATIONS:
            if not isinstance(module, nn.Identity):
                found[-1] = (found[-1][0], module)
        elif not isinstance(module, nn.Dropout):
            options = source.model.recipe.encoder.projections
            part = f"encoder.projections: {', '.join(each.kind for each in options)}"
            raise NoCounterpartError(part, "sentence-transformers has no such module")
    return found


def _flat(modules: Sequence[nn.Module]) -> list[nn.Module]:
    return [inner for each in modules for inner in (_flat(list(each)) if isinstance(each, nn.Sequential) else [each])]


def _save_dense(folder: Path, dense: nn.Linear, activation: nn.Module) -> None:
    folder.mkdir()
    sizes = {"in_features": dense.in_features, "out_features": dense.out_features, "bias": dense.bias is not None}
    _write(folder / "config.json", {**sizes, "activation_function": _ACTIVATIONS[type(activation)]})
    state: dict[str, Tensor] = {f"linear.{name}": each.detach().contiguous() for name, each in dense.named_parameters()}
    save_tensors(state, folder / "model.safetensors")


def _note(task: str, declared: Task) -> list[str]:
    if isinstance(declared.head, CosineHead):
        return []
    what = f"{task}: the vectors alone; tasks.{task}.head: {declared.head.kind}"
    return [f"{what} has no counterpart in sentence-transformers, and --to onnx exports it"]


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
