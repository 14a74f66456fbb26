"""Packing keeps every example, its order, its segments; inference batches cover all examples once."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manyhead.batching import length_batches, pack
from manyhead.data.tokens import TokenStore
from manyhead.packed import PackedBatch, PackedPart
from manyhead.schedules.base import Part


def store_of(lengths: list[int], sequences_per_example: int, seed: int) -> TokenStore:
    rng = np.random.default_rng(seed)
    sizes = np.array(lengths, dtype=np.int64)
    return TokenStore(
        ids=rng.integers(0, 60_000, int(sizes.sum())).astype(np.uint16),
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        segment_starts=rng.integers(1, sizes + 1).astype(np.int32),
        truncated=np.zeros(len(lengths) // sequences_per_example, dtype=bool),
        sequences_per_example=sequences_per_example,
    )


sizes = st.lists(st.integers(1, 30), min_size=2, max_size=24).map(lambda found: found[: len(found) // 2 * 2])


@given(sizes, sizes, st.integers(0, 9))
def test_each_example_of_each_part_is_found_again(one: list[int], two: list[int], seed: int) -> None:
    stores = {"a": store_of(one, 1, seed), "b": store_of(two, 2, seed + 1)}
    rng = np.random.default_rng(seed)
    parts = [Part(name, rng.permutation(store.n_examples)) for name, store in stores.items()]
    batch = pack(parts, stores)
    sequences = batch.input_ids.split(list(batch.lengths))
    segments = batch.segment_ids.split(list(batch.lengths))
    for part, packed in zip(parts, batch.parts, strict=True):
        store = stores[part.task]
        inside = list(batch.lengths[packed.start : packed.stop])
        assert inside == sorted(inside)
        for example, rows in zip(part.examples, packed.sequences.tolist(), strict=True):
            for which, row in enumerate(rows):
                source = int(example) * store.sequences_per_example + which
                assert sequences[row].tolist() == store.sequence(source).tolist()
                start = int(store.segment_starts[source])
                assert segments[row].tolist() == [int(i >= start) for i in range(len(sequences[row]))]
    for packed, route in zip(batch.parts, batch.routes, strict=True):
        own = torch.cat(sequences[packed.start : packed.stop])
        assert route.task == packed.task
        assert batch.input_ids[route.start : route.stop].tolist() == own.tolist()
    plain = pack(parts, stores, segment_ids=False)
    assert not bool(plain.segment_ids.any())


@given(sizes, st.integers(1, 200), st.sampled_from([1, 2]))
def test_inference_batches_hold_every_example_once_within_the_budget(
    lengths: list[int], budget: int, sequences_per_example: int
) -> None:
    store = store_of(lengths, sequences_per_example, 0)
    tokens = store.lengths().reshape(-1, sequences_per_example).sum(1)
    batches = list(length_batches(store, budget))
    assert sorted(np.concatenate(batches).tolist()) == list(range(store.n_examples))
    for batch in batches:
        assert len(batch) == 1 or tokens[batch].sum() <= budget


def test_a_batch_whose_parts_disagree_is_refused() -> None:
    ids = torch.zeros(5, dtype=torch.int64)
    part = PackedPart("a", 0, 2, torch.tensor([[0], [1]]))
    PackedBatch(ids, ids, (2, 3), (part,))
    with pytest.raises(ValueError, match="disagree"):
        PackedBatch(ids, ids, (2, 2), (part,))
    with pytest.raises(ValueError, match="no tokens"):
        PackedBatch(ids, ids, (5, 0), (part,))
    with pytest.raises(ValueError, match="cover"):
        PackedBatch(ids, ids, (2, 2, 1), (part,))
