import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from manyhead.schedules.base import Part

COUNTS = st.integers(1, 7)


@given(st.integers(0, 60), COUNTS, COUNTS)
def test_slices_are_contiguous_nearly_equal_and_together_the_part(size, ranks, micros):
    part = Part("sst", np.arange(100, 100 + size))
    shares = [part.slice(rank, ranks, micro, micros) for rank in range(ranks) for micro in range(micros)]
    assert np.array_equal(np.concatenate([share.examples for share in shares]), part.examples)
    counts = [len(share.examples) for share in shares]
    assert max(counts) - min(counts) <= 1
    assert {share.task for share in shares} == {"sst"}


@given(st.integers(0, 60), COUNTS, COUNTS)
def test_pieces_of_a_rank_are_its_share_in_pieces(size, ranks, micros):
    part = Part("sst", np.arange(size))
    for rank in range(ranks):
        pieces = [part.slice(rank, ranks, micro, micros).examples for micro in range(micros)]
        assert np.array_equal(np.concatenate(pieces), part.slice(rank, ranks, 0, 1).examples)


def test_one_rank_and_one_piece_is_the_whole_part():
    part = Part("sst", np.array([5, 3, 9]))
    assert np.array_equal(part.slice(0, 1, 0, 1).examples, part.examples)
