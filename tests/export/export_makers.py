"""Tiny models of several families, written as a run's model/ is, whose every part has a say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AlbertConfig,
    AutoModel,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from manyhead.cli.export import export_stored
from manyhead.cli.stored import find_model
from manyhead.encoder.load import read_config
from manyhead.encoder.source import locate_encoder
from manyhead.encoder.tokenizer import load_tokenizer
from manyhead.export.export import Exported
from manyhead.inference.model_folder import save_encoder_files, write_model
from manyhead.model import build_model
from manyhead.recipe.load import load_recipe, recipe_yaml
from mixed import perturb
from tiny import tiny_encoder, tiny_recipe, tiny_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": tiny_tokenizer().get_vocab_size(),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, Any] = {
    "roberta": RobertaConfig(**SIZES, type_vocab_size=1, pad_token_id=0, bos_token_id=2, eos_token_id=3),
    "xlm-roberta": XLMRobertaConfig(**SIZES, type_vocab_size=1, pad_token_id=0, bos_token_id=2, eos_token_id=3),
    "camembert": CamembertConfig(**SIZES, type_vocab_size=1, pad_token_id=0, bos_token_id=2, eos_token_id=3),
    "albert": AlbertConfig(**SIZES, embedding_size=8),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
    "electra-narrow": ElectraConfig(**SIZES, embedding_size=8),
    "distilbert": DistilBertConfig(
        vocab_size=SIZES["vocab_size"], dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=64
    ),
}


def family_encoder(folder: Path, family: str) -> Path:
    """Writes a random encoder of a family: ``bert`` or one of `FAMILIES`."""
    tiny_encoder(folder)
    if family != "bert":
        torch.manual_seed(3)
        AutoModel.from_config(FAMILIES[family]).save_pretrained(folder)
    return folder


def saved_model(
    folder: Path,
    encoder: Path,
    *,
    encoder_options: Mapping[str, Any] | None = None,
    tasks: Mapping[str, Mapping[str, Any]] | None = None,
    temperatures: Mapping[str, float] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> Path:
    """Writes a model of the tiny recipe with changed ``tasks`` and arbitrary weights."""
    values = tiny_recipe(encoder)
    values["encoder"] |= encoder_options or {}
    for name, changes in (tasks or {}).items():
        values["tasks"][name] |= changes
    loaded = load_recipe(values)
    source = locate_encoder(str(encoder), None)
    config = read_config(encoder, dropout=0.1, attention_dropout=None)
    network = build_model(loaded.recipe, loaded.tables, config, source.folder)
    perturb(network, spread=0.05)
    for module in (network.heads, network.pooling, network.experts, network.projections):
        perturb(module)
    for name, value in (thresholds or {}).items():
        network.set_threshold(name, value)
    files = folder.with_name(f"{folder.name}-encoder")
    files.mkdir(parents=True)
    save_encoder_files(encoder, config, load_tokenizer(encoder), files)
    calibration = {name: {"temperature": value} for name, value in (temperatures or {}).items()}
    write_model(folder, network, recipe_yaml(loaded.recipe), files, calibration)
    return folder


def exported(model: Path, form: str, out: Path, *tasks: str, **options: Any) -> Exported:
    """Exports a model as the verb does."""
    return export_stored(find_model(str(model)), form, tasks=list(tasks) or None, out=out, **options)
