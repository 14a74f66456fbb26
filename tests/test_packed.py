"""Parts of a packed batch as a batch of their own, and whose each token is."""

import pytest
import torch

from manyhead.packed import PackedBatch, PackedPart


def batch() -> PackedBatch:
    """One text; two pairs of texts, mixed up by length; two texts."""
    lengths = (3, 1, 2, 2, 4, 2, 5)
    ids = torch.arange(sum(lengths))
    parts = (
        PackedPart("a", 0, 1, torch.tensor([[0]])),
        PackedPart("b", 1, 5, torch.tensor([[4, 1], [2, 3]])),
        PackedPart("c", 5, 7, torch.tensor([[6], [5]])),
    )
    return PackedBatch(ids, ids % 2, lengths, parts)


@pytest.mark.parametrize("tasks", [["a"], ["b"], ["c"], ["c", "a"], ["b", "c"], ["a", "b", "c", "d"]])
def test_the_parts_of_some_tasks_hold_the_same_texts(tasks: list[str]) -> None:
    whole = batch()
    texts, segments = (each.split(list(whole.lengths)) for each in (whole.input_ids, whole.segment_ids))
    found = whole.only(tasks)
    own_texts, own_segments = (each.split(list(found.lengths)) for each in (found.input_ids, found.segment_ids))
    expected = [part for part in whole.parts if part.task in tasks]
    assert [part.task for part in found.parts] == [part.task for part in expected]
    for part, before in zip(found.parts, expected, strict=True):
        assert part.sequences.shape == before.sequences.shape
        for row, old in zip(part.sequences.flatten().tolist(), before.sequences.flatten().tolist(), strict=True):
            assert part.start <= row < part.stop
            assert torch.equal(own_texts[row], texts[old])
            assert torch.equal(own_segments[row], segments[old])


def test_each_token_belongs_to_its_example() -> None:
    whole = batch()
    texts = whole.examples_of_tokens().split(list(whole.lengths))
    examples = [0, 1, 2, 2, 1, 4, 3]
    assert [set(each.tolist()) for each in texts] == [{example} for example in examples]
    assert [len(each) for each in texts] == list(whole.lengths)
