"""The parts of a layer as BERT has it, for those who run it themselves instead of calling its modules.

x -> y = LN(x + out(attention(x))) -> LN(y + output(gelu(intermediate(y)))), with dropout before each sum.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.activations import GELUActivation

MODEL_TYPES = frozenset({"bert", "camembert", "data2vec-text", "electra", "ernie", "roberta", "xlm-roberta"})
"""Model types whose layers are of BERT's kind."""

_READERS = "transformers.utils.output_capturing"
"""Where transformers' own hooks are from: they read what layers give, and stay once somebody asked for it."""

_PLACES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "out_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}


@dataclass(frozen=True)
class BertLayer:
    """The modules of one layer of ``heads`` attention heads, and the dropout rates of its three places.

    ``out`` and ``out_norm`` close the attention, ``output`` and ``output_norm`` the feed-forward part. ``modules`` are
    all of the layer's, those that hold no parameters included.
    """

    heads: int
    attention_dropout: float
    dropout: float
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    out_norm: nn.LayerNorm
    intermediate: nn.Linear
    output: nn.Linear
    output_norm: nn.LayerNorm
    modules: tuple[nn.Module, ...]

    @property
    def dense(self) -> tuple[nn.Linear, ...]:
        """All dense layers, in the order they run."""
        return (self.query, self.key, self.value, self.out, self.intermediate, self.output)

    @property
    def is_changed(self) -> bool:
        """Whether hooks on its modules may make it do other things than BERT's."""
        return any(
            getattr(hook, "__module__", None) != _READERS
            for module in self.modules
            for hooks in (
                module._forward_hooks,
                module._forward_pre_hooks,
                module._backward_hooks,
                module._backward_pre_hooks,
            )
            for hook in hooks.values()
        )


def bert_layers_of(model: PreTrainedModel) -> tuple[BertLayer, ...] | None:
    """The layers of ``model``, first to last; None where they are of another kind than BERT's."""
    config: Any = model.config
    if config.model_type not in MODEL_TYPES or config.is_decoder:
        return None
    layers = list(model.get_submodule("encoder.layer").children())
    found = [_layer(each, config) for each in layers]
    return tuple(each for each in found if each is not None) if all(found) else None


def _layer(layer: nn.Module, config: Any) -> BertLayer | None:
    parts: dict[str, Any] = {name: layer.get_submodule(place) for name, place in _PLACES.items()}
    kinds = {name: nn.LayerNorm if name.endswith("_norm") else nn.Linear for name in _PLACES}
    usual = all(type(parts[name]) is kind and parts[name].bias is not None for name, kind in kinds.items())
    if not usual or type(layer.get_submodule("intermediate.intermediate_act_fn")) not in (GELUActivation, nn.GELU):
        return None
    return BertLayer(
        heads=int(config.num_attention_heads),
        attention_dropout=float(config.attention_probs_dropout_prob),
        dropout=float(config.hidden_dropout_prob),
        modules=tuple(layer.modules()),
        **parts,
    )
