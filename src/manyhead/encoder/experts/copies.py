"""Specialised models (S3): one encoder, pooling and projections for each task, all with the same weights at first."""

import copy
from collections.abc import Sequence

from torch import nn

from manyhead.encoder import CopiesExperts
from manyhead.encoder.copied_encoder import CopiedEncoder
from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.encoder.per_task import PerTask
from manyhead.encoder.trunk import Trunk


def build(options: CopiesExperts, trunk: Trunk, tasks: Sequence[str], seed: int) -> Trunk:
    """The trunk once for each of ``tasks``. Nothing is drawn."""
    del options, seed
    encoder = trunk.encoder
    assert isinstance(encoder, PackedEncoder)

    def each(module: nn.Module) -> PerTask:
        return PerTask({task: copy.deepcopy(module) for task in tasks})

    encoders = {task: copy.deepcopy(encoder) for task in tasks}
    return Trunk(CopiedEncoder(encoders), each(trunk.pooling), each(trunk.projections))
