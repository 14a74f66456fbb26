"""One encoder a task, behind the interface of one encoder."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from manyhead.encoder.packed_encoder import PackedEncoder, TokenStates
from manyhead.encoder.per_task import PerTask
from manyhead.errors import UsageError
from manyhead.packed import Route, offsets_of


class CopiedEncoder(nn.Module):
    """A `PackedEncoder` for each task; each runs its own task's sequences."""

    def __init__(self, encoders: Mapping[str, PackedEncoder]) -> None:
        super().__init__()
        self.copies = PerTask(encoders)
        first = next(iter(encoders.values()))
        self.n_layers, self.layer, self.width = first.n_layers, first.layer, first.width
        self.has_segments = first.has_segments

    def of(self, task: str) -> PackedEncoder:
        """The encoder of ``task``."""
        encoder = self.copies.of(task)
        assert isinstance(encoder, PackedEncoder)
        return encoder

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        lengths: Sequence[int],
        *,
        routes: Sequence[Route],
        noise: Tensor | None = None,
        layer: int | None = None,
    ) -> TokenStates:
        """See `PackedEncoder.forward`; ``routes`` must cover all T tokens, in order."""
        offsets = offsets_of(lengths)
        found: list[TokenStates] = []
        for route in routes:
            tokens = slice(route.start, route.stop)
            own = lengths[offsets.index(route.start) : offsets.index(route.stop)]
            part = None if noise is None else noise[tokens]
            found.append(self.of(route.task)(input_ids[tokens], segment_ids[tokens], own, noise=part, layer=layer))
        received = [states.received for states in found if states.received is not None]
        return TokenStates(torch.cat([states.hidden for states in found]), torch.cat(received) if received else None)

    def sparse_embedding_gradients(self, sparse: bool) -> None:
        """See `PackedEncoder.sparse_embedding_gradients`."""
        for task in self.copies.tasks:
            self.of(task).sparse_embedding_gradients(sparse)

    def depths(self, prefix: str) -> dict[str, int]:
        """See `PackedEncoder.depths`."""
        return {
            name: depth
            for key, encoder in self.copies.named_children()
            if isinstance(encoder, PackedEncoder)
            for name, depth in encoder.depths(f"{prefix}copies.{key}.").items()
        }

    @property
    def word_embeddings(self) -> Tensor:
        """Raises `UsageError`: copies share none."""
        raise UsageError(
            "encoder.experts: copies have no word embeddings in common; expected one encoder for all tasks; "
            "use other experts, or leave out what reads the encoder's word embeddings"
        )
