"""Dense layers for inference on a CPU, by oneDNN's kernels: in fp32, bf16 or int8.

torch's own fp32 products go to a library that is slow on some processors, and its bf16 products pack the weights anew
in each call.
"""

import math

import torch
from torch import Tensor

_PACKED_FOR = 2048
_LARGEST = 127
_STEPS = 254
_CHUNK = 256
_WHOLE = 2.0**23


class FloatDense:
    """x W^T + b in ``dtype``, and GELU behind it where asked. ``weight`` is (F, G), ``bias`` (F,).

    Weights that are fp32 and stay so are used where they are; others are copied, in oneDNN's own order.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype, *, gelu: bool = False) -> None:
        self._weight = weight.detach().to(dtype)
        if dtype is not torch.float32:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight, _PACKED_FOR)
        self._bias = bias.detach().to(dtype)
        self._behind = "gelu" if gelu else "none"

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows (T, G) of any type to (T, F) in the layer's."""
        rows = rows.to(self._bias.dtype)
        return torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, self._behind, [], "none")


class Int8Dense:
    """x W^T + b by products of 8-bit integers with results in ``dtype``, and GELU behind it where asked.

    Each row of W has a scale of its own, which takes it to -127 .. 127. The rows of a call share a scale and a zero
    point, from their smallest to their largest value: what is found for a row depends a little on those beside it.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype, *, gelu: bool = False) -> None:
        weight = weight.detach().float()
        self._scales = (weight.abs().amax(1) / _LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
        whole = (weight / self._scales[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(whole, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = bias.detach().float()
        self._dtype = dtype
        self._behind = "gelu" if gelu else "none"

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows (T, G) of any type to (T, F) in the layer's; all NaN where one of them is not finite."""
        least, most = torch.aminmax(rows)
        low, high = min(float(least), 0.0), max(float(most), 0.0)
        if not math.isfinite(high - low):
            return torch.full((len(rows), len(self._bias)), math.nan, dtype=self._dtype)
        scale = (high - low) / _STEPS or 1.0
        zero = math.ceil(-low / scale)
        return torch.ops.onednn.qlinear_pointwise(
            quantized(rows, scale, zero), scale, zero, self._weight, self._scales, self._zeros, self._bias,
            1.0, 0, self._dtype, self._behind, [], "none",
        )  # fmt: skip


def quantized(rows: Tensor, scale: float, zero: int) -> Tensor:
    """``rows / scale + zero``, rounded, as uint8; all must lie between 0 and 255.

    From 2^23 on, the last bits of a float are its whole number: reading them is far quicker than a conversion to uint8.
    Chunks stay in the processor's cache.
    """
    found = torch.empty(rows.shape, dtype=torch.uint8)
    shift = torch.tensor([_WHOLE + zero])
    for source, target in zip(rows.split(_CHUNK), found.split(_CHUNK), strict=True):
        target.copy_(torch.add(shift, source, alpha=1 / scale).view(torch.int32))
    return found
