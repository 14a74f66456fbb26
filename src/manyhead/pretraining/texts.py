"""The texts of examples one by one, also out of pairs that were joined, and packed batches of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from manyhead.batching import pack
from manyhead.data.tokens import TokenStore
from manyhead.errors import UsageError
from manyhead.packed import PackedBatch
from manyhead.schedules.base import Indices, Part

Ids = NDArray[Any]
"""Token ids (n,) of a sequence."""

_BRACKETS = "[]<>|"


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that a tokenizer adds to texts, as ids.

    ``ids`` of all special tokens; ``mask`` of the one that hides others, None where there is none. A text alone stands
    between ``start`` and ``end``; of a pair, the texts stand between ``pair_start``, ``between`` and ``pair_end``.
    ``segment_shift``: places from the first token of type 1 to the first one of the second text.
    """

    ids: frozenset[int]
    mask: int | None
    start: tuple[int, ...]
    end: tuple[int, ...]
    pair_start: tuple[int, ...]
    between: tuple[int, ...]
    pair_end: tuple[int, ...]
    segment_shift: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """What ``tokenizer`` does to a text and to a pair."""
        special = {
            token: added.content for token, added in tokenizer.get_added_tokens_decoder().items() if added.special
        }
        masks = [token for token, content in special.items() if content.strip(_BRACKETS).lower() == "mask"]
        text, pair = tokenizer.encode("a"), tokenizer.encode("a", "a")
        first, second = _places(text, 0)
        start, end = text.ids[:first], text.ids[second:]
        first, first_end = _places(pair, 0)
        second, second_end = _places(pair, 1)
        return cls(
            frozenset(special),
            min(masks, default=None),
            tuple(start),
            tuple(end),
            tuple(pair.ids[:first]),
            tuple(pair.ids[first_end:second]),
            tuple(pair.ids[second_end:]),
            second - pair.type_ids.index(1) if 1 in pair.type_ids else 0,
        )

    def split(self, pair: Ids, segment_start: int) -> tuple[Ids, Ids]:
        """The two texts of a joined pair, without special tokens.

        ``segment_start`` is the place of the first token of type 1. For tokenizers without types, where it is the
        length, the second text begins behind the first tokens that look like the separator. Raises `UsageError` where
        none do.
        """
        stop = len(pair) - len(self.pair_end)
        if segment_start < len(pair):
            second = segment_start + self.segment_shift
        else:
            second = self._behind_separator(pair[:stop])
        return pair[len(self.pair_start) : second - len(self.between)], pair[second:stop]

    def alone(self, text: Ids) -> Ids:
        """A text without special tokens as a sequence of its own."""
        return np.concatenate([np.array(self.start, text.dtype), text, np.array(self.end, text.dtype)])

    def is_empty(self, sequence: Ids) -> bool:
        """Whether a text alone has nothing but special tokens around it."""
        return len(sequence) <= len(self.start) + len(self.end)

    def _behind_separator(self, pair: Ids) -> int:
        size = len(self.between)
        for place in range(len(self.pair_start), len(pair) - size + 1) if size else ():
            if tuple(pair[place : place + size].tolist()) == self.between:
                return place + size
        raise UsageError(
            "the encoder's tokenizer marks no place where the second text of a pair begins; expected a separator or "
            "segment ids; set pairing: siamese"
        )


def texts_of(store: TokenStore, examples: Indices, special: SpecialTokens, *, is_pair: bool) -> list[tuple[Ids, ...]]:
    """The texts of each example, each as a sequence of its own: one, or two of a pair, joined or siamese."""
    n = store.sequences_per_example
    if not is_pair or n == 2:
        return [tuple(store.sequence(int(example) * n + which) for which in range(n)) for example in examples]
    return [
        tuple(map(special.alone, special.split(store.sequence(int(row)), int(store.segment_starts[row]))))
        for row in examples
    ]


def pack_texts(examples: Mapping[str, Sequence[tuple[Ids, ...]]]) -> PackedBatch:
    """A packed batch of one part a task, whose examples all have the same number of sequences; of one segment."""
    stores = {task: _store(found) for task, found in examples.items()}
    return pack([Part(task, np.arange(store.n_examples)) for task, store in stores.items()], stores)


def _store(examples: Sequence[tuple[Ids, ...]]) -> TokenStore:
    sequences = [sequence for example in examples for sequence in example]
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    return TokenStore(
        ids=np.concatenate(sequences),
        offsets=np.concatenate([np.zeros(1, np.int64), lengths.cumsum(dtype=np.int64)]),
        segment_starts=lengths,
        truncated=np.zeros(len(examples), bool),
        sequences_per_example=len(examples[0]),
    )


def _places(encoding: Encoding, text: int) -> tuple[int, int]:
    """Where the tokens of a text begin and end."""
    places = [place for place, which in enumerate(encoding.sequence_ids) if which == text]
    return places[0], places[-1] + 1
