"""The sandwich layer norm of S1: F becomes ln(F(ln(x))), for attention and feed-forward."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from manyhead.encoder.layers import bert_layers
from manyhead.encoder.packed_encoder import PackedEncoder


def add_sandwich_norm(encoder: PackedEncoder) -> None:
    """Puts norms without parameters before and behind each sublayer of BERT's residual norms.

    y = LN(x + ln(Attention(ln(x)))), z = LN(y + ln(FeedForward(ln(y)))), dropout between ln and the sum. The residual
    itself is not touched. Raises `UsageError` for an encoder without BERT's layers.
    """
    epsilon = float(getattr(encoder.model.config, "layer_norm_eps", 1e-12))
    for layer in bert_layers(encoder, "encoder.sandwich_norm"):
        for before in ("attention.self", "intermediate"):
            layer.get_submodule(before).register_forward_pre_hook(partial(_norm_input, epsilon=epsilon))
        for behind in ("attention.output.dense", "output.dense"):
            layer.get_submodule(behind).register_forward_hook(partial(_norm_output, epsilon=epsilon))


def _norm_input(module: nn.Module, inputs: tuple[Tensor, ...], *, epsilon: float) -> tuple[Tensor, ...]:
    del module
    return (_norm(inputs[0], epsilon), *inputs[1:])


def _norm_output(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, *, epsilon: float) -> Tensor:
    del module, inputs
    return _norm(output, epsilon)


def _norm(states: Tensor, epsilon: float) -> Tensor:
    return F.layer_norm(states, states.shape[-1:], eps=epsilon)
