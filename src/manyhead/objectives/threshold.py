"""The cut between two classes on one output that is right most often."""

import torch
from torch import Tensor


def fit_threshold(outputs: Tensor, targets: Tensor) -> float:
    """The t for which ``output > t`` is most often right about ``target == 1``, of outputs (E,) and targets (E,).

    Half-way between two neighbouring outputs, or well beyond all of them where a single class is best. Of
    equally good cuts the lowest. Outputs that are not finite numbers do not count; without any the cut is 0.
    """
    finite = outputs.isfinite()
    values, order = outputs[finite].detach().float().cpu().sort()
    if not len(values):
        return 0.0
    positive = (targets[finite].cpu() == 1)[order].long()
    # right[i]: examples that a cut below values[i] gets right, which calls the first i negative.
    right = torch.cat([torch.zeros(1, dtype=torch.long), (1 - 2 * positive).cumsum(0)]) + positive.sum()
    possible = torch.cat([torch.tensor([True]), values[1:] > values[:-1], torch.tensor([True])])
    place = int(right.masked_fill(~possible, -1).argmax())
    if place == 0:
        return float(values[0] - values[0].abs().clamp_min(1))
    if place == len(values):
        return float(values[-1] + values[-1].abs().clamp_min(1))
    below, above = values[place - 1], values[place]
    middle = below + (above - below) / 2
    return float(torch.where(middle < above, middle, below))
