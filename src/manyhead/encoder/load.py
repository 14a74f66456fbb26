"""From a folder with an encoder's files, or from a configuration alone, to a `PackedEncoder`."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from safetensors.torch import load_file
from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from manyhead.encoder.dropout import replace_dropout
from manyhead.encoder.foreign import CONFIG, load_config_dict, read_object
from manyhead.encoder.packed_encoder import POSITIONS_AFTER_PADDING, TOLERANCE, PackedEncoder
from manyhead.encoder.source import weight_files
from manyhead.errors import UsageError

log = logging.getLogger(__name__)

_DROPOUTS = ("hidden_dropout_prob", "dropout", "embedding_dropout", "mlp_dropout", "hidden_dropout")
_ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")
_POOLER = "pooler."
_FETCH_CODE = frozenset({"mra", "yoso"})  # where there is a GPU, transformers gets their kernels from the hub
_ENCODERS = frozenset(MODEL_FOR_MASKED_LM_MAPPING_NAMES) - _FETCH_CODE
_MOST_LAYERS = 1000


def read_config(folder: Path, *, dropout: float, attention_dropout: float | None) -> PretrainedConfig:
    """The configuration in ``folder`` with its dropout rates replaced.

    Raises `UsageError` for a model type that transformers does not know, and for one that is no encoder.
    """
    path = folder / CONFIG
    values = load_config_dict(folder)
    model_type = str(values.pop("model_type", ""))
    if model_type not in _ENCODERS:
        raise UsageError(f"{path}: {_not_known(model_type, path)}")
    if odd := [key for key in values if callable(getattr(CONFIG_MAPPING[model_type], key, None))]:
        raise UsageError(f"{path}: {odd[0]}: is no setting of {model_type}; remove it, or use another checkpoint")
    try:
        config = AutoConfig.for_model(model_type, **values)
        layers = getattr(config, "num_hidden_layers", None)
        if layers is None or not 0 < layers <= _MOST_LAYERS:
            raise ValueError(f"it has {layers} layers")
    except Exception as error:  # configurations check themselves, each in its own way
        raise UsageError(f"{path}: cannot be used: {error}; expected a {model_type} encoder") from error
    if getattr(config, "is_encoder_decoder", False):
        raise UsageError(f"{path}: {_not_known(model_type, path)}")
    _set_all(config, _DROPOUTS, dropout)
    _set_all(config, _ATTENTION_DROPOUTS, dropout if attention_dropout is None else attention_dropout)
    config.dtype = torch.float32  # training keeps fp32 weights, whatever the checkpoint was saved in
    return config


def _not_known(model_type: str, path: Path) -> str:
    """What is wrong with a model type, and what to use instead."""
    problem = f"model_type '{model_type}' is not known to transformers {transformers.__version__}"
    do = "use another checkpoint or a newer transformers"
    if model_type in CONFIG_MAPPING:
        problem, do = f"'{model_type}' is not an encoder that can be used", "use another checkpoint"
    elif "auto_map" in read_object(path):
        problem += ", and code that comes with a model (auto_map) is never run"
    return (
        f"{problem}; expected a BERT-family encoder, such as bert, roberta, electra, distilbert, albert or modernbert; "
        f"{do}"
    )


def build_encoder(
    config: PretrainedConfig, weights: Path | None, *, layer: int, capture: bool, max_tokens: int
) -> tuple[PackedEncoder, dict[str, torch.Tensor]]:
    """An encoder of ``config`` with the weights in folder ``weights`` (new ones if None), tested for packing.

    Returns the encoder, and the pooler's weights where the checkpoint brings them: the encoder itself runs none.
    Raises `UsageError` where ``max_tokens`` or ``layer`` do not fit, or where weights are missing.
    """
    check_limits(config, layer=layer, max_tokens=max_tokens)
    with quiet_transformers():
        model, missing = (_new_model(config), [_POOLER]) if weights is None else _load_weights(config, weights)
    pooler = _take_pooler(model, missing)
    replace_dropout(model)
    can_pack = model._can_set_attn_implementation()
    encoder = PackedEncoder(model, layer=layer, capture=capture, packed=can_pack)
    if can_pack and _difference(encoder, max_tokens) > TOLERANCE:
        encoder.fused = False
    if can_pack and not encoder.fused and (difference := _difference(encoder, max_tokens)) > TOLERANCE:
        can_pack = False
        encoder.use_packed(False)
        log.debug("packed and one-by-one runs differ by %.2g", difference)
    if not can_pack:
        log.warning("%s does not run packed; texts of equal length run together instead", config.model_type)
    return encoder, pooler


def empty_encoder(config: PretrainedConfig) -> PreTrainedModel:
    """A model of ``config`` without a pooler on torch's default device, for its shapes; it is not ready to run."""
    with quiet_transformers():
        model = _new_model(config)
    _take_pooler(model, [_POOLER])
    replace_dropout(model)
    return model


def _difference(encoder: PackedEncoder, max_tokens: int) -> float:
    try:
        return encoder.self_test(max_tokens)
    except (TypeError, ValueError, RuntimeError) as error:
        log.debug("packed run failed: %s", error)
        return float("inf")


def _new_model(config: PretrainedConfig) -> PreTrainedModel:
    try:
        return AutoModel.from_config(config, attn_implementation="eager", dtype=torch.float32)
    except Exception as error:  # models check themselves, each in its own way
        raise UsageError(f"{CONFIG}: no {config.model_type} can be built: {error}; use another checkpoint") from error


def _load_weights(config: PretrainedConfig, weights: Path) -> tuple[PreTrainedModel, list[str]]:
    state = _read_tensors(weights)
    try:
        _check_size(config, state)
        # Given tensors, transformers opens no file: no adapter, no other format, whatever lies in the folder.
        model, loading = cast("Any", MODEL_MAPPING[type(config)]).from_pretrained(
            None,
            config=config,
            state_dict=state,
            attn_implementation="eager",
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # models check themselves, each in its own way
        raise UsageError(
            f"{weights}: the weights do not fit {CONFIG}: {error}; expected those of one encoder; copy it again"
        ) from error
    missing = sorted(loading["missing_keys"])
    needed = [key for key in missing if not key.startswith(_POOLER)]
    if needed:
        raise UsageError(
            f"{weights}: {len(needed)} weights of a {config.model_type} encoder are missing, such as '{needed[0]}'; "
            "expected the whole encoder; use another checkpoint"
        )
    for parameter in model.parameters():
        # Out of the file's memory, where matrices begin anywhere: the last bits of their products depend on it.
        parameter.data = parameter.data.clone()
    return model, missing


def _read_tensors(weights: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    for path in weight_files(weights):
        try:
            state |= load_file(path)
        except Exception as error:  # safetensors raises its own, and OSError
            raise UsageError(f"{path}: cannot be read: {error}; expected safetensors; copy it again") from error
    return state


def _check_size(config: PretrainedConfig, state: Mapping[str, torch.Tensor]) -> None:
    """Raises ValueError before memory is taken for an encoder of which most weights are missing."""
    with torch.device("meta"):
        described = sum(parameter.numel() for parameter in empty_encoder(config).parameters())
    held = sum(tensor.numel() for tensor in state.values())
    if described > 2 * held:
        raise ValueError(f"it describes {described:,} parameters, {held:,} are there")


def _take_pooler(model: PreTrainedModel, missing: list[str]) -> dict[str, torch.Tensor]:
    pooler: Any = getattr(model, "pooler", None)
    if pooler is None:
        return {}
    cast("Any", model).pooler = None
    known = not any(key.startswith(_POOLER) for key in missing)
    if not known:
        return {}
    # BERT's pooler is a module with a dense layer, ALBERT's is that layer.
    return {f"dense.{name.rpartition('.')[2]}": tensor.detach() for name, tensor in pooler.state_dict().items()}


def check_limits(config: PretrainedConfig, *, layer: int, max_tokens: int) -> None:
    """Raises `UsageError` where the encoder has no such layer, or fewer positions than ``max_tokens``."""
    values: Any = config
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None:
        usable = positions - (values.pad_token_id + 1 if config.model_type in POSITIONS_AFTER_PADDING else 0)
        if max_tokens > usable:
            raise UsageError(
                f"encoder.max_tokens: {max_tokens} is more than the encoder's {usable} positions; "
                f"expected at most {usable}; lower it"
            )
    layers = int(values.num_hidden_layers)
    if not -layers - 1 <= layer <= layers:
        raise UsageError(
            f"encoder.layer: the encoder has no layer {layer}; expected {-layers - 1} to {layers}, 0 and "
            f"{-layers - 1} being the embeddings"
        )


def _set_all(config: PretrainedConfig, names: tuple[str, ...], value: float) -> None:
    for name in names:
        if hasattr(config, name):
            setattr(config, name, value)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps transformers' own bars and warnings off the user's screen while it loads."""
    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
