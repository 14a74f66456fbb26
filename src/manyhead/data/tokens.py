"""Texts to token ids: flat arrays of sequences, one after the other.

Axes: T tokens, S sequences, E examples; a siamese pair is one example of two sequences, everything else of one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from manyhead.data.table import without_surrogates

BATCH_EXAMPLES = 2048
"""Examples tokenised at once: enough to keep all cores busy, few enough to bound the memory."""

T = TypeVar("T")

_TAKEN_AT_ONCE = 1 << 16
_CHARS_PER_TOKEN = 20
_SPACES = (" ", "\n", "\t")


@dataclass(frozen=True)
class TokenStore:
    """Token ids of many sequences.

    ``ids`` (T,) uint16, or uint32 for vocabularies beyond it; ``offsets`` (S + 1,) int64: sequence s is
    ``ids[offsets[s]:offsets[s + 1]]``; ``segment_starts`` (S,) int32: place of the first token of the second text
    (type id 1) in its sequence, or the sequence's length; ``truncated`` (E,) bool: a text of the example was cut.
    Sequence s of example e is ``e * sequences_per_example + s``.
    """

    ids: NDArray[np.uint16] | NDArray[np.uint32]
    offsets: NDArray[np.int64]
    segment_starts: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    sequences_per_example: int

    @property
    def n_examples(self) -> int:
        """E."""
        return len(self.truncated)

    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each sequence, (S,)."""
        lengths = np.empty(len(self.offsets) - 1, np.int32)
        return np.subtract(self.offsets[1:], self.offsets[:-1], out=lengths, casting="unsafe")

    def sequence(self, index: int) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """Ids of one sequence; a view."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def joined(self, sequences: NDArray[np.int64]) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """Ids of some sequences end to end, in the order given, (T,)."""
        starts = self.offsets[sequences]
        lengths = self.offsets[sequences + 1] - starts
        ends = lengths.cumsum()
        places = np.arange(ends[-1] if len(ends) else 0)
        return self.ids[places + np.repeat(starts - ends + lengths, lengths)]

    def take(self, examples: NDArray[np.int64]) -> "TokenStore":
        """A store of some examples, in the order given."""
        n = self.sequences_per_example
        sequences = (examples[:, None] * n + np.arange(n)).reshape(-1)
        offsets = np.zeros(len(sequences) + 1, np.int64)
        np.cumsum(self.offsets[sequences + 1] - self.offsets[sequences], out=offsets[1:])
        ids: Any = np.empty(offsets[-1], self.ids.dtype)
        for start in range(0, len(sequences), _TAKEN_AT_ONCE):
            some = sequences[start : start + _TAKEN_AT_ONCE]
            ids[offsets[start] : offsets[start + len(some)]] = self.joined(some)
        return TokenStore(
            ids,
            offsets,
            self.segment_starts[sequences],
            self.truncated[examples],
            n,
        )


@dataclass(frozen=True)
class TokenChunk:
    """Some examples, tokenised: as in `TokenStore`, with ``lengths`` (S,) int64 in place of offsets."""

    ids: NDArray[Any]
    lengths: NDArray[np.int64]
    segment_starts: NDArray[np.int32]
    truncated: NDArray[np.bool_]


class ExampleTokenizer:
    """Tokenises examples with copies of ``tokenizer``, which itself is left as it is.

    Pairs become one sequence with the tokenizer's own special tokens and type ids (longer text cut first), or, with
    ``siamese``, two sequences. Texts far beyond ``max_tokens`` are cut before they are tokenised, where the rest
    cannot matter: tokenising a million characters takes seconds, and of a pair of such texts, minutes. Of two texts
    that are both cut so, which one keeps the odd token is decided by what is left of them. A tokenizer should add
    special tokens: else a text without words is a sequence without tokens.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int, siamese: bool) -> None:
        plain = plain_copy(tokenizer)
        self._probe = plain
        self._tokenizer = plain_copy(plain)
        self._tokenizer.enable_truncation(max_tokens, strategy="longest_first", direction="right")
        self._max_tokens = max_tokens
        self._siamese = siamese
        self.dtype: type[np.uint16] | type[np.uint32] = np.uint16 if _largest_id(plain) < 2**16 else np.uint32

    @property
    def sequences_per_example(self) -> int:
        """2 for siamese pairs, else 1."""
        return 2 if self._siamese else 1

    def __call__(self, examples: Iterable[tuple[str, ...]]) -> Iterator[TokenChunk]:
        """Tokenises examples, all of one text or all of two, in batches. Lone surrogates become U+FFFD."""
        return map(self.batch, in_batches(examples))

    def batch(self, examples: Sequence[tuple[str, ...]]) -> TokenChunk:
        """Tokenises examples at once, at least one."""
        texts = [tuple([self.cut(without_surrogates(text)[0]) for text in example]) for example in examples]
        is_pair = len(texts[0]) > 1 and not self._siamese
        encodings = self._tokenizer.encode_batch_fast(texts if is_pair else list(chain.from_iterable(texts)))
        ids = [encoding.ids for encoding in encodings]
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        starts = np.fromiter(map(_segment_start, encodings), np.int32, len(ids)) if is_pair else lengths
        full = [len(row) == self._max_tokens and bool(e.overflowing) for row, e in zip(ids, encodings, strict=True)]
        return TokenChunk(
            ids=np.fromiter(chain.from_iterable(ids), self.dtype, int(lengths.sum())),
            lengths=lengths,
            segment_starts=starts.astype(np.int32),
            truncated=np.array(full, bool).reshape(-1, self.sequences_per_example).max(axis=1),
        )

    def cut(self, text: str) -> str:
        """A beginning of ``text`` that alone has more than ``max_tokens`` tokens; or all of it.

        It ends at white space, or, in scripts that have none, where a word of the tokenizer's ends.
        """
        chars = self._max_tokens * _CHARS_PER_TOKEN
        while chars < len(text):
            for cut in (_up_to_space, self._whole_words):
                beginning = cut(text[:chars])
                if len(self._probed(beginning)) > self._max_tokens:
                    return beginning
            chars *= 4
        return text

    def _whole_words(self, text: str) -> str:
        """``text`` without its last word, which may go on behind it."""
        encoding = self._probed(text)
        words = encoding.word_ids
        return text[: encoding.offsets[words.index(words[-1])][0]] if words else ""

    def _probed(self, text: str) -> Encoding:
        """All of ``text``'s tokens. A batch of one, since that lets other threads run meanwhile."""
        return self._probe.encode_batch([text], add_special_tokens=False)[0]


def tokenize_texts(
    tokenizer: Tokenizer, texts: Iterable[tuple[str, ...]], *, max_tokens: int, siamese: bool
) -> TokenStore:
    """Tokenises examples in memory; see `ExampleTokenizer`."""
    return tokenized(ExampleTokenizer(tokenizer, max_tokens=max_tokens, siamese=siamese), texts)


def tokenized(tokenize: ExampleTokenizer, texts: Iterable[tuple[str, ...]]) -> TokenStore:
    """All of ``texts`` in memory."""
    chunks = [_no_tokens(tokenize.dtype), *tokenize(texts)]
    lengths = np.concatenate([np.zeros(1, np.int64), *(chunk.lengths for chunk in chunks)])
    return TokenStore(
        ids=np.concatenate([chunk.ids for chunk in chunks]),
        offsets=lengths.cumsum(),
        segment_starts=np.concatenate([chunk.segment_starts for chunk in chunks]),
        truncated=np.concatenate([chunk.truncated for chunk in chunks]),
        sequences_per_example=tokenize.sequences_per_example,
    )


def in_batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Lists of up to `BATCH_EXAMPLES` items, in order, none empty."""
    rest = iter(items)
    while batch := list(islice(rest, BATCH_EXAMPLES)):
        yield batch


def plain_copy(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that neither pads nor truncates."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy


def _up_to_space(text: str) -> str:
    return text[: max(map(text.rfind, _SPACES)) + 1].rstrip("".join(_SPACES))


def _no_tokens(dtype: type[np.uint16] | type[np.uint32]) -> TokenChunk:
    return TokenChunk(np.empty(0, dtype), np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, bool))


def _segment_start(encoding: Encoding) -> int:
    types = encoding.type_ids
    return types.index(1) if 1 in types else len(types)


def _largest_id(tokenizer: Tokenizer) -> int:
    return max(tokenizer.get_vocab().values(), default=0)
