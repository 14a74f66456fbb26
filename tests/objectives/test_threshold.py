"""The fitted cut is as good as the best that there is, and the same one each time."""

from random import Random

import torch
from hypothesis import given
from hypothesis import strategies as st

from manyhead.objectives.threshold import fit_threshold

floats = st.floats(-(2.0**100), 2.0**100, width=32)
rows = st.lists(st.tuples(st.one_of(floats, st.integers(-2, 2).map(float)), st.integers(0, 1)), max_size=20)


def right(cut: float, outputs: torch.Tensor, targets: torch.Tensor) -> int:
    """Examples that the model gets right, whose threshold is of its outputs' type."""
    return int(((outputs > torch.tensor(cut)) == (targets == 1)).sum())


@given(rows, st.randoms())
def test_no_cut_is_better(found: list[tuple[float, int]], order: Random) -> None:
    outputs = torch.tensor([output for output, _ in found])
    targets = torch.tensor([target for _, target in found], dtype=torch.long)
    cut = fit_threshold(outputs, targets)
    candidates = [-(2.0**101), *outputs.tolist()]
    assert right(cut, outputs, targets) == max(right(other, outputs, targets) for other in candidates)
    shuffled = list(range(len(found)))
    order.shuffle(shuffled)
    assert fit_threshold(outputs[shuffled], targets[shuffled]) == cut


def test_a_cut_lies_half_way_and_is_the_lowest_of_equals() -> None:
    assert fit_threshold(torch.tensor([0.8, 0.2, 0.4]), torch.tensor([1, 0, 0])) == 0.6000000238418579
    assert fit_threshold(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([0, 1, 0, 1])) == 0.5
    assert fit_threshold(torch.tensor([0.2, 0.4]), torch.tensor([1, 1])) < -0.7
    assert fit_threshold(torch.tensor([0.2, 0.4]), torch.tensor([0, 0])) > 1.3
    assert fit_threshold(torch.tensor([0.3, 0.3, 0.3]), torch.tensor([1, 0, 0])) > 1.2


def test_neighbours_with_nothing_between_are_told_apart() -> None:
    low = torch.tensor(0.5)
    high = torch.nextafter(low, torch.tensor(1.0))
    for lower, upper in ((low, high), (high, torch.nextafter(high, torch.tensor(1.0)))):
        outputs, targets = torch.stack([lower, upper]), torch.tensor([0, 1])
        assert right(fit_threshold(outputs, targets), outputs, targets) == 2


def test_no_numbers_give_no_cut() -> None:
    assert fit_threshold(torch.empty(0), torch.empty(0)) == 0
    assert fit_threshold(torch.tensor([torch.nan, torch.inf]), torch.tensor([0, 1])) == 0
    mixed = torch.tensor([torch.nan, 1.0, 2.0, -torch.inf])
    assert fit_threshold(mixed, torch.tensor([1, 0, 1, 1])) == 1.5
