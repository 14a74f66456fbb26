"""Clipping against torch's, whoever scales."""

import copy

import pytest
import torch
from torch import nn

from manyhead.training.clipping import Clipping, clip, unclip

OPTIMIZERS = {
    "fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True),
    "fused adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1, fused=True),
    "plain": lambda parameters: torch.optim.AdamW(parameters, lr=0.1),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
}


@pytest.mark.parametrize("limit", [0.1, 3.0, 1e6])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_updates_are_those_of_gradients_clipped_by_torch(name: str, limit: float) -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    theirs = copy.deepcopy(ours)
    own, other = (OPTIMIZERS[name](model.parameters()) for model in (ours, theirs))
    for step in range(4):
        batch = torch.randn(6, 5) * 10.0**step
        for model, optimizer in ((ours, own), (theirs, other)):
            optimizer.zero_grad()
            unclip(optimizer)
            model(batch).square().sum().backward()
        norm = clip(list(ours.parameters()), Clipping(limit), own)
        expected = nn.utils.clip_grad_norm_(theirs.parameters(), limit)
        torch.testing.assert_close(norm, expected)
        own.step()
        other.step()
        for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_what_was_told_for_one_step_is_not_for_the_next() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=True)
    parameter.grad = torch.full((3,), 100.0)
    clip([parameter], Clipping(1.0), optimizer)
    unclip(optimizer)
    parameter.grad = torch.full((3,), 1e-3)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[parameter]["exp_avg"], torch.full((3,), 1e-4))
