"""The encoder as one task reads with it, in transformers' own form: configuration, weights, tokenizer."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PretrainedConfig

from manyhead.encoder import LowRankExperts
from manyhead.encoder.copied_encoder import CopiedEncoder
from manyhead.encoder.experts.low_rank import MATRICES
from manyhead.encoder.foreign import CONFIG, TOKENIZER_CONFIG
from manyhead.encoder.layers import bert_layers
from manyhead.encoder.packed_encoder import POSITIONS_AFTER_PADDING, PackedEncoder
from manyhead.export.source import NoCounterpartError, Source

_LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")
_ROLES = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "bos_token", "eos_token")


@dataclass(frozen=True)
class PlainEncoder:
    """``config`` and ``state`` (parameters by the names of transformers' base model, no pooler) of one encoder."""

    config: PretrainedConfig
    state: Mapping[str, Tensor]

    @property
    def width(self) -> int:
        """Width D of its states."""
        config: Any = self.config
        return int(config.hidden_size)


def plain_encoder(source: Source, task: str | None) -> PlainEncoder:
    """The encoder up to the layer that is pooled; low-rank experts of ``task`` are added to its matrices.

    ``task`` None: without experts, whether there are some or not. Raises `NoCounterpartError` for what a plain encoder
    cannot have.
    """
    options, encoder = source.model.recipe.encoder, source.network.encoder
    if options.sandwich_norm:
        raise NoCounterpartError("encoder.sandwich_norm: true", "plain encoders have no such norms")
    if isinstance(encoder, CopiedEncoder):
        assert task is not None
        encoder = encoder.of(task)
    assert isinstance(encoder, PackedEncoder)
    state = {name: parameter.detach().clone() for name, parameter in encoder.model.named_parameters()}
    match options.experts:
        case None:
            pass
        case LowRankExperts() if task is not None:
            _add_low_rank(source, encoder, task, state)
        case LowRankExperts():
            pass
        case experts if experts.kind != "copies":
            raise NoCounterpartError(f"encoder.experts: {experts.kind}", "plain encoders have no such layers")
    config = type(encoder.model.config).from_dict(encoder.model.config.to_dict())
    if encoder.layer < encoder.n_layers:
        if encoder.layer == 0:
            raise NoCounterpartError(f"encoder.layer: {options.layer}", "a plain encoder has one layer at least")
        config.num_hidden_layers = encoder.layer
        state = {name: tensor for name, tensor in state.items() if not _is_above(name, encoder.layer)}
    return PlainEncoder(config, state)


def low_rank_matrices(source: Source, encoder: PackedEncoder, task: str) -> dict[str, tuple[Tensor, Tensor]]:
    """A (r, F) and B (G, r) of a task's low-rank experts, by the name of the dense layer they are added to."""
    names = {module: name for name, module in encoder.model.named_modules()}
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for layer, own in zip(
        bert_layers(encoder, "encoder.experts"), source.network.experts.of(task).children(), strict=True
    ):
        for name, place in MATRICES.items():
            expert: Any = own.get_submodule(name)
            found[names[layer.get_submodule(place)]] = (expert.down.detach().clone(), expert.up.detach().clone())
    return found


def save_base_model(encoder: PlainEncoder, folder: Path) -> None:
    """Writes the encoder as ``AutoModel`` loads it. A pooler that its class has is all 0: the model has none there."""
    model = AutoModel.from_config(encoder.config, dtype=torch.float32)
    missing, unexpected = model.load_state_dict(dict(encoder.state), strict=False)
    assert not unexpected
    for name in missing:
        assert name.startswith("pooler."), name
        torch.nn.init.zeros_(model.get_parameter(name))
    model.save_pretrained(folder)


def save_plain_tokenizer(source: Source, folder: Path) -> None:
    """Writes tokenizer.json as the model uses it, with settings that any transformers reads it by, as it is.

    The longest text is the model's. Segment ids are made where the model reads them.
    """
    tokenizer = source.model.tokenizer
    tokenizer.save(str(folder / "tokenizer.json"))
    encoder = source.network.encoder
    names = ["input_ids", "attention_mask"]
    if encoder.has_segments and source.model.recipe.encoder.segment_ids:
        names.insert(1, "token_type_ids")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": source.model.recipe.encoder.max_tokens,
        "model_input_names": names,
        "clean_up_tokenization_spaces": False,
        **_special_tokens(source),
    }
    (folder / TOKENIZER_CONFIG).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _special_tokens(source: Source) -> dict[str, str]:
    """Special tokens by role: as the files beside the tokenizer say; the padding token at least."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", TOKENIZER_CONFIG):
        path = source.encoder_files / name
        written: Any = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        for role in _ROLES:
            token = written.get(role)
            content = token.get("content") if isinstance(token, dict) else token
            if isinstance(content, str) and source.model.tokenizer.token_to_id(content) is not None:
                found[role] = content
    config: Any = AutoConfig.for_model(**json.loads((source.encoder_files / CONFIG).read_text("utf-8")))
    padding = source.model.tokenizer.id_to_token(config.pad_token_id or 0)
    return {"pad_token": padding, **found}


def without_padding_positions(encoder: PlainEncoder) -> PlainEncoder:
    """The same with positions that begin at 0, as BERT's do, in a family whose positions begin behind the padding's."""
    config: Any = encoder.config
    if config.model_type not in POSITIONS_AFTER_PADDING:
        return encoder
    first = int(config.pad_token_id) + 1
    name = "embeddings.position_embeddings.weight"
    changed = type(config).from_dict(config.to_dict())
    changed.max_position_embeddings -= first
    return PlainEncoder(changed, {**encoder.state, name: encoder.state[name][first:].clone()})


def _add_low_rank(source: Source, encoder: PackedEncoder, task: str, state: dict[str, Tensor]) -> None:
    options = source.model.recipe.encoder.experts
    assert isinstance(options, LowRankExperts)
    for name, (down, up) in low_rank_matrices(source, encoder, task).items():
        update = (up.double() @ down.double()) * (options.alpha / options.rank)
        state[f"{name}.weight"] = (state[f"{name}.weight"].double() + update).to(torch.float32)


def _is_above(name: str, layer: int) -> bool:
    found = _LAYER.search(name)
    return found is not None and int(found[1]) >= layer
