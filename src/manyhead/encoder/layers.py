"""The layers of BERT and its kin, for what attaches to their parts by hooks."""

from torch import nn

from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.errors import UsageError

PARTS = (
    "attention.self",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
"""Modules of a layer that hooks are put on."""


def bert_layers(encoder: PackedEncoder, key: str) -> list[nn.Module]:
    """The encoder's layers, first to last; raises `UsageError` about the recipe's ``key`` where they lack `PARTS`."""
    try:
        layers = list(encoder.model.get_submodule("encoder.layer").children())
        for layer in layers:
            for part in PARTS:
                layer.get_submodule(part)
    except AttributeError:
        raise UsageError(
            f"{key}: a {encoder.model.config.model_type} encoder has no layers that it could be attached to; expected "
            "an encoder with BERT's layers: bert, roberta or electra; use another checkpoint, or leave it out"
        ) from None
    return layers


def init_as_bert(module: nn.Module, encoder: PackedEncoder) -> None:
    """Draws all dense weights as the encoder's were at first, N(0, ``initializer_range``); their biases are 0."""
    spread = float(getattr(encoder.model.config, "initializer_range", 0.02))
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=spread)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
