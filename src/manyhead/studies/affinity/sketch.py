"""Gradients projected to few numbers whose inner products are, on average, those of the gradients."""

import numpy as np
import torch
from torch import Tensor

from manyhead.schedules.draws import Key, random_words

WIDTH = 32749
"""Numbers that are kept of a longer gradient. It is prime: the columns of a matrix spread over all of them."""

_SIGNS_PER_WORD = 64


class Sketch:
    """A fixed random projection of vectors of ``size`` numbers to `WIDTH`; shorter ones stay as they are.

    A count sketch (Charikar 2002): each number gets a random sign, drawn from ``key``, and those that lie `WIDTH` apart
    are summed. The inner product of two projections has the vectors' own as its mean over signs, and a standard
    deviation of about |x| |y| / sqrt(WIDTH): a cosine is off by about .006.
    """

    def __init__(self, size: int, key: Key) -> None:
        self.size = size
        self.width = min(size, WIDTH)
        self._signs: Tensor | None = None
        if size > WIDTH:
            words = random_words(-(-size // _SIGNS_PER_WORD), key)
            bits = np.unpackbits(words.astype("<u8").view(np.uint8))[:size].astype(np.int8)
            self._signs = torch.from_numpy(bits * np.int8(2) - np.int8(1))

    def __call__(self, vector: Tensor) -> Tensor:
        """The projection (width,) of ``vector`` (size,), on the CPU."""
        if self._signs is None:
            return vector.cpu()
        signed = vector * self._signs.to(vector.device)
        whole = self.size // self.width * self.width
        total = signed[:whole].view(-1, self.width).sum(0)
        total[: self.size - whole] += signed[whole:]
        return total.cpu()
