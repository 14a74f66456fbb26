"""The trunk: all of a model ahead of its heads, before and after experts are put into it."""

from dataclasses import dataclass, field

from torch import nn

from manyhead.encoder.copied_encoder import CopiedEncoder
from manyhead.encoder.layers import bert_layers
from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.encoder.per_task import PerTask
from manyhead.errors import UsageError


@dataclass(frozen=True)
class Trunk:
    """``encoder``, ``pooling`` and ``projections`` in the order they run; `PerTask` ones where tasks have copies.

    ``experts`` holds what each task has of its own inside the encoder. ``freezes_encoder``: they train in its place.
    """

    encoder: PackedEncoder | CopiedEncoder
    pooling: nn.Module
    projections: nn.Module
    experts: PerTask = field(default_factory=lambda: PerTask({}))
    freezes_encoder: bool = False


def packed_encoder(trunk: Trunk, kind: str) -> PackedEncoder:
    """The shared encoder that experts ``kind`` attach to.

    Raises `UsageError` where it does not run packed: an expert finds its task's tokens by their places in the batch.
    """
    encoder = trunk.encoder
    assert isinstance(encoder, PackedEncoder)
    bert_layers(encoder, f"encoder.experts: {kind}")
    if not encoder.packed:
        raise UsageError(
            f"encoder.experts: {kind} needs an encoder that runs packed, and this {encoder.model.config.model_type} "
            "does not; expected bert, roberta or electra; use another checkpoint, or experts: copies"
        )
    return encoder
