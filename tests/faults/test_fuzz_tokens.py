"""Tokenising under fuzz: any texts, lone surrogates too, give tokens within the limit, alone as in company."""

import pytest
from hostile import ANY_TEXT, TEXTS, shown
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyhead.data.tokens import TokenStore, tokenize_texts
from tiny import sample_texts, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
SAMPLE = st.sampled_from(sample_texts())
ANY = st.one_of(
    ANY_TEXT,
    SAMPLE,
    st.tuples(ANY_TEXT, SAMPLE, ANY_TEXT).map("".join),
    st.tuples(ANY_TEXT | SAMPLE, st.sampled_from([1, 3, 40, 400])).map(lambda pair: pair[0] * pair[1]),
)
CASES = (
    st.integers(1, 2).flatmap(lambda width: st.lists(st.tuples(*[ANY] * width), min_size=1, max_size=4)),
    st.integers(4, 24),
    st.booleans(),
)


def tokens_of(texts: list[tuple[str, ...]], max_tokens: int, siamese: bool) -> TokenStore:
    return tokenize_texts(TOKENIZER, texts, max_tokens=max_tokens, siamese=siamese and len(texts[0]) == 2)


def examples_of(store: TokenStore) -> list[tuple[list[list[int]], list[int], bool]]:
    """Of each example the ids of its sequences, where their second segments start, and whether it was cut."""
    n = store.sequences_per_example
    return [
        (
            [store.sequence(example * n + place).tolist() for place in range(n)],
            store.segment_starts[example * n : example * n + n].tolist(),
            bool(store.truncated[example]),
        )
        for example in range(store.n_examples)
    ]


def tokenises(texts: list[tuple[str, ...]], max_tokens: int, siamese: bool) -> None:
    store = tokens_of(texts, max_tokens, siamese)
    together = examples_of(store)
    assert store.n_examples == len(texts)
    assert store.offsets[-1] == len(store.ids)
    for number, found in enumerate(together):
        for ids, start in zip(found[0], found[1], strict=True):
            assert 2 <= len(ids) <= max_tokens
            assert 0 < start <= len(ids)
            assert max(ids) < TOKENIZER.get_vocab_size()
        assert examples_of(tokens_of([texts[number]], max_tokens, siamese)) == [found]
    clean = [tuple(shown(text) for text in example) for example in texts]
    assert examples_of(tokens_of(clean, max_tokens, siamese)) == together


@settings(max_examples=200)
@given(*CASES)
def test_any_texts_are_tokenised_alike_alone_and_together(
    texts: list[tuple[str, ...]], max_tokens: int, siamese: bool
) -> None:
    tokenises(texts, max_tokens, siamese)


@pytest.mark.slow
@settings(max_examples=4000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(*CASES)
def test_very_many_texts_are_tokenised_alike_alone_and_together(
    texts: list[tuple[str, ...]], max_tokens: int, siamese: bool
) -> None:
    tokenises(texts, max_tokens, siamese)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("width", [1, 2])
def test_known_hostile_texts_are_tokenised_alike_alone_and_together(text: str, width: int) -> None:
    usual = ("the film is good",) * width
    texts = [usual, (text,) * width, usual, ("",) * width]
    tokenises(texts, 16, siamese=False)
    first, _, third, _ = examples_of(tokens_of(texts, 16, siamese=False))
    assert [first] == [third] == examples_of(tokens_of([usual], 16, siamese=False))
