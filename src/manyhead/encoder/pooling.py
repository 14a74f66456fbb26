"""Pooling: one vector a sequence from its tokens' states (methods.md section 2).

Each member is a module: ``forward(states: TokenStates, lengths) -> (B, D)``.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from manyhead.encoder import (
    AttentionPooling,
    ClsPooling,
    ConvPooling,
    MaxPooling,
    MeanPooling,
    PoolerPooling,
)
from manyhead.encoder.packed_encoder import TokenStates
from manyhead.packed import offsets_of


class Cls(nn.Module):
    """The first token's state."""

    def forward(self, states: TokenStates, lengths: Sequence[int]) -> Tensor:
        """States (T, D) to (B, D)."""
        return states.hidden[torch.tensor(offsets_of(lengths)[:-1], device=states.hidden.device)]


class Pooler(nn.Module):
    """tanh of a dense layer on the first token's state, as BERT's own pooler."""

    def __init__(self, width: int, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.first = Cls()
        self.dense = nn.Linear(width, width)
        if weights:
            self.dense.load_state_dict({"weight": weights["dense.weight"], "bias": weights["dense.bias"]})

    def forward(self, states: TokenStates, lengths: Sequence[int]) -> Tensor:
        """States (T, D) to (B, D)."""
        return torch.tanh(self.dense(self.first(states, lengths)))


class Mean(nn.Module):
    """The mean over each sequence's tokens."""

    def forward(self, states: TokenStates, lengths: Sequence[int]) -> Tensor:
        """States (T, D) to (B, D)."""
        counts = torch.tensor(list(lengths), device=states.hidden.device)
        return _segment_sum(states.hidden, counts) / counts[:, None]


class Max(nn.Module):
    """The largest value over each sequence's tokens."""

    def forward(self, states: TokenStates, lengths: Sequence[int]) -> Tensor:
        """States (T, D) to (B, D)."""
        return torch.stack([part.amax(0) for part in states.hidden.split(list(lengths))])


class AttentionMean(nn.Module):
    """Mean weighted by the attention each token receives; the weights of a sequence add up to 1."""

    def forward(self, states: TokenStates, lengths: Sequence[int]) -> Tensor:
        """States (T, D) and received attention (T,) to (B, D)."""
        if states.received is None:
            raise ValueError("attention pooling needs an encoder built with capture")
        counts = torch.tensor(list(lengths), device=states.hidden.device)
        received = states.received.float()[:, None]
        return _segment_sum(states.hidden * received, counts) / _segment_sum(received, counts)


class ConvMean(nn.Module):
    """Convolutions of several widths over the tokens (each sequence alone), joined by a dense layer, then the mean."""

    def __init__(self, width: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.kernels = nn.ModuleList(nn.Linear(kernel * width, width) for kernel in kernels)
        self.join = nn.Linear(len(kernels) * width, width)
        self.reaches = [kernel // 2 for kernel in kernels]
        self.mean = Mean()

    def forward(self, states: TokenStates, lengths: Sequence[int]) -> Tensor:
        """States (T, D) to (B, D)."""
        hidden = states.hidden
        counts = torch.tensor(list(lengths), device=hidden.device)
        sequence = torch.arange(len(lengths), device=hidden.device).repeat_interleave(counts)
        outputs = [
            torch.relu(dense(torch.cat([_shifted(hidden, sequence, by) for by in range(-reach, reach + 1)], dim=1)))
            for dense, reach in zip(self.kernels, self.reaches, strict=True)
        ]
        return self.mean(TokenStates(self.join(torch.cat(outputs, dim=1)), None), lengths)


def build_cls(options: ClsPooling, width: int, pooler: Mapping[str, Tensor]) -> nn.Module:
    """See `Cls`."""
    del options, width, pooler
    return Cls()


def build_pooler(options: PoolerPooling, width: int, pooler: Mapping[str, Tensor]) -> nn.Module:
    """See `Pooler`; ``pooler`` holds the encoder's own weights, if it brings them."""
    del options
    return Pooler(width, pooler)


def build_mean(options: MeanPooling, width: int, pooler: Mapping[str, Tensor]) -> nn.Module:
    """See `Mean`."""
    del options, width, pooler
    return Mean()


def build_max(options: MaxPooling, width: int, pooler: Mapping[str, Tensor]) -> nn.Module:
    """See `Max`."""
    del options, width, pooler
    return Max()


def build_attention(options: AttentionPooling, width: int, pooler: Mapping[str, Tensor]) -> nn.Module:
    """See `AttentionMean`."""
    del options, width, pooler
    return AttentionMean()


def build_conv(options: ConvPooling, width: int, pooler: Mapping[str, Tensor]) -> nn.Module:
    """See `ConvMean`."""
    del pooler
    return ConvMean(width, options.kernels)


def _segment_sum(rows: Tensor, counts: Tensor) -> Tensor:
    """Sums of consecutive runs of ``counts`` rows: (T, F) to (B, F), in fp32."""
    rows = rows.float()
    sequence = torch.arange(len(counts), device=rows.device).repeat_interleave(counts)
    return rows.new_zeros(len(counts), rows.shape[1]).index_add(0, sequence, rows)


def _shifted(rows: Tensor, sequence: Tensor, by: int) -> Tensor:
    """Row t + by at t, and 0 where that is another sequence."""
    if by == 0:
        return rows
    moved = rows.roll(-by, 0)
    positions = torch.arange(len(rows), device=rows.device) + by
    inside = (positions >= 0) & (positions < len(rows)) & (sequence.roll(-by, 0) == sequence)
    return moved * inside[:, None]
