"""Tasks as plain ``AutoModelForSequenceClassification`` folders, which ``transformers.pipeline`` runs.

The classes have a hidden layer of the encoder's width on the first token, and one activation each. An encoder can go
into another family's class where that computes the same: BERT's layers are ELECTRA's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from manyhead.errors import UsageError
from manyhead.export.encoders import PlainEncoder, plain_encoder, save_plain_tokenizer, without_padding_positions
from manyhead.export.readout import Affine, Readout, readout_of
from manyhead.export.source import Export, NoCounterpartError, Source, Written, expected_outputs
from manyhead.recipe.schema import Task

_READER = "sequence_classification.py"


class Host(NamedTuple):
    """A family's class: its prefix, the names of its head's two dense layers, and the activation between them.

    ``moved``: the encoder is of another family, and gets this one's configuration.
    """

    name: str
    prefix: str
    first: str
    last: str
    activation: str
    moved: bool = False


_BERT = Host("Bert", "bert", "bert.pooler.dense", "classifier", "tanh")
_ELECTRA = Host("Electra", "electra", "classifier.dense", "classifier.out_proj", "gelu")
_ROBERTA = Host("Roberta", "roberta", "classifier.dense", "classifier.out_proj", "tanh")

HOSTS: dict[str, tuple[Host, ...]] = {
    "bert": (_BERT, _ELECTRA._replace(moved=True)),
    "electra": (_ELECTRA, _BERT._replace(moved=True)),
    "roberta": (_ROBERTA, _ELECTRA._replace(moved=True)),
    "xlm-roberta": (_ROBERTA._replace(name="XLMRoberta"), _ELECTRA._replace(moved=True)),
    "camembert": (_ROBERTA._replace(name="Camembert"), _ELECTRA._replace(moved=True)),
    "distilbert": (Host("DistilBert", "distilbert", "pre_classifier", "classifier", "relu"),),
    "albert": (Host("Albert", "albert", "albert.pooler", "classifier", "tanh"),),
}
"""The classes that an encoder's model type can go into; the first is its own."""

_SAME_IN_BERTS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size"),
    *("initializer_range", "layer_norm_eps", "pad_token_id"),
)


def write(source: Source, folder: Path) -> Export:
    """A folder for each task. Tasks that were not named one by one are left out where they have no counterpart."""
    written: list[Written] = []
    left_out: dict[str, NoCounterpartError] = {}
    for task in source.tasks:
        try:
            save_task(source, task, folder / task)
        except NoCounterpartError as error:
            left_out[task] = error
            continue
        classes = source.model.tasks[task].kind == "classification"
        written.append(Written(task, task, _READER, source.texts[task], expected_outputs(source, task), classes))
    if left_out and (source.named or not written):
        raise UsageError("\n".join(f"{task}: not exported: {error}" for task, error in left_out.items()))
    return Export(written, {task: str(error) for task, error in left_out.items()})


def save_task(source: Source, task: str, folder: Path) -> None:
    """Writes one task into the new ``folder``. Raises `NoCounterpartError` where no class computes the same."""
    readout, encoder = readout_of(source, task), plain_encoder(source, task)
    host = _host(encoder, readout, source, task)
    if readout.activation is None:
        readout = readout.through(host.activation)
    model = _empty(encoder, host, source.model.tasks[task], len(readout.last.bias), task)
    state = {f"{host.prefix}.{name}": tensor for name, tensor in _moved(encoder, host).state.items()}
    readout = readout.widened(encoder.width)
    assert readout.first is not None
    state |= _dense(host.first, readout.first) | _dense(host.last, readout.last)
    model.load_state_dict(cast("Mapping[str, Any]", state))
    folder.mkdir()
    model.save_pretrained(folder)
    save_plain_tokenizer(source, folder)


def _host(encoder: PlainEncoder, readout: Readout, source: Source, task: str) -> Host:
    config: Any = encoder.config
    hosts = [host for host in HOSTS.get(config.model_type, ()) if not host.moved or _can_move(encoder)]
    pooling, head = source.model.recipe.encoder.pooling.kind, source.model.tasks[task].head.kind
    part = f"encoder.pooling: {pooling} with tasks.{task}.head: {head}"
    if not hosts:
        raise NoCounterpartError(f"encoder.checkpoint: {config.model_type}", "no class for it is known here")
    if readout.activation is None:
        hosts = [host for host in hosts if host.activation != "tanh"]
        units, what = 2 * len(readout.last.bias), "a head without an activation"
    else:
        hosts = [host for host in hosts if host.activation == readout.activation]
        assert readout.first is not None
        units, what = len(readout.first.bias), f"a hidden layer with {readout.activation}"
    if not hosts:
        raise NoCounterpartError(part, f"no plain class for {config.model_type} has {what}")
    if units > encoder.width:
        reason = f"it takes {units} hidden units, and the plain classes have {encoder.width}, the encoder's width"
        raise NoCounterpartError(part, reason)
    return hosts[0]


def _can_move(encoder: PlainEncoder) -> bool:
    """Whether embeddings and states are of one width: other families cannot have it otherwise."""
    return getattr(encoder.config, "embedding_size", encoder.width) == encoder.width


def _moved(encoder: PlainEncoder, host: Host) -> PlainEncoder:
    return without_padding_positions(encoder) if host.moved else encoder


def _empty(encoder: PlainEncoder, host: Host, task: Task, outputs: int, name: str) -> PreTrainedModel:
    """The class of ``host`` with the task's labels; its weights are arbitrary."""
    config = _moved(encoder, host).config
    if host.moved:
        kept = {key: getattr(config, key) for key in _SAME_IN_BERTS}
        if host.name == "Electra":
            kept["embedding_size"] = encoder.width
        config = cast("PretrainedConfig", getattr(transformers, f"{host.name}Config")(**kept))
    labels = task.label_names or [name]
    assert len(labels) == outputs
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    config.problem_type = "single_label_classification" if task.label_names else "regression"
    config.dtype = torch.float32
    return getattr(transformers, f"{host.name}ForSequenceClassification")(config)


def _dense(name: str, affine: Affine) -> dict[str, Tensor]:
    return {f"{name}.weight": affine.weight.float(), f"{name}.bias": affine.bias.float()}
