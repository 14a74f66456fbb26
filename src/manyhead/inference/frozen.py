"""`FrozenModel`: a model with its weights as they are at the moment, laid out for inference."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor, nn

from manyhead.encoder.inference_encoder import InferenceEncoder, Precision, can_run
from manyhead.encoder.packed_encoder import PackedEncoder
from manyhead.encoder.pooling import Cls, Pooler
from manyhead.errors import UsageError
from manyhead.model import MultiTaskModel
from manyhead.packed import PackedBatch


class FrozenModel:
    """Pools a batch's sequences; heads and all else are those of ``model``.

    Encoders of BERT's kind without experts run in an `InferenceEncoder` on the CPU, others by their own modules. Once
    the weights change, another one is due. Evaluation while training and predictions of a loaded model use the same,
    which gives both the same bits.
    """

    def __init__(self, model: MultiTaskModel, *, int8: bool = False) -> None:
        self.model = model
        self._lock = Lock()
        self._inside = 0
        self._was_training = False
        self._encoder: InferenceEncoder | None = None
        precision = Precision(model.autocast or torch.float32, int8)
        if can_run(model.encoder, precision):
            assert isinstance(model.encoder, PackedEncoder)
            # Their subclasses may read other tokens as well.
            first_only = type(model.pooling) in (Cls, Pooler)
            with torch.no_grad():
                self._encoder = InferenceEncoder(model.encoder, precision, first_only=first_only)
        elif int8:
            raise UsageError(
                "precision: int8 is for encoders with BERT's layers, without experts, sandwich norms or attention "
                "pooling, and this is another; expected bert, roberta or electra; use bf16 or fp32"
            )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def vectors(self, batch: PackedBatch) -> Tensor:
        """Pooled vectors (B, D) of all sequences, as heads see them, fp32."""
        if self._encoder is None:
            return self.model.embed(batch)
        states, lengths = self._encoder(batch)
        return self.model.projections(self.model.pooling(states, lengths))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Evaluation mode, without gradients; the model is as it was behind the last thread that is in here."""
        with self._lock:
            if not self._inside:
                self._was_training = self.model.training
                if self._was_training:
                    self.model.eval()
            self._inside += 1
        try:
            with torch.inference_mode():
                yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside and self._was_training:
                    self.model.train()


def frozen(model: MultiTaskModel | FrozenModel) -> FrozenModel:
    """A model as it is at the moment, unless it is frozen already."""
    return model if isinstance(model, FrozenModel) else FrozenModel(model)


def freeze_for_inference(model: MultiTaskModel, autocast: torch.dtype | None) -> None:
    """Leaves the dense weights of encoder and experts in ``autocast`` alone, whose fp32 inference does not need.

    Embeddings and layer norms stay fp32, so that predictions are bit for bit those of the evaluation while training.
    """
    model.autocast = autocast
    model.requires_grad_(False).eval()
    if autocast is not None:
        for part in (model.encoder, model.experts):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    module.to(autocast)
