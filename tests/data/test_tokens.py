"""Tokens are those of Hugging Face's tokenizers, whatever the texts, and cut early only where it cannot matter."""

import time
from typing import Any

import numpy as np
import pytest
from data_makers import WORDS, make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from manyhead.data.tokens import BATCH_EXAMPLES, TokenStore, tokenize_texts

TOKENIZER = make_tokenizer()
SENTENCES = st.lists(st.sampled_from([*WORDS, "Films", "xyz", "日本"]), max_size=30).map(" ".join)
ANY_TEXT = st.text(max_size=40) | SENTENCES
SURROGATES = st.text(st.characters(categories=["Cs", "Lu", "Zs"]), max_size=10)
MAX_TOKENS = 12


def hugging_face(texts: list[tuple[str, ...]], max_tokens: int) -> Any:
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=TOKENIZER, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    )
    columns = [list(column) for column in zip(*texts, strict=True)]
    return tokenizer(
        *columns, truncation="longest_first", max_length=max_tokens, padding=False, return_token_type_ids=True
    )


def ids_of(store: TokenStore) -> list[list[int]]:
    return [store.sequence(index).tolist() for index in range(len(store.lengths()))]


def tokenize(texts: list[tuple[str, ...]], max_tokens: int = MAX_TOKENS, *, siamese: bool = False) -> TokenStore:
    return tokenize_texts(TOKENIZER, texts, max_tokens=max_tokens, siamese=siamese)


@given(texts=st.lists(st.tuples(ANY_TEXT), min_size=1, max_size=5), max_tokens=st.integers(5, 20))
def test_single_texts_are_as_in_transformers(texts: list[tuple[str, ...]], max_tokens: int) -> None:
    store = tokenize(texts, max_tokens)
    theirs = hugging_face(texts, max_tokens)
    assert ids_of(store) == theirs["input_ids"]
    assert store.segment_starts.tolist() == store.lengths().tolist()
    whole = hugging_face(texts, 10_000)["input_ids"]
    assert store.truncated.tolist() == [len(row) > max_tokens for row in whole]


@given(texts=st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=1, max_size=5), max_tokens=st.integers(5, 20))
def test_pairs_are_as_in_transformers(texts: list[tuple[str, ...]], max_tokens: int) -> None:
    store = tokenize(texts, max_tokens)
    theirs = hugging_face(texts, max_tokens)
    assert ids_of(store) == theirs["input_ids"]
    assert store.segment_starts.tolist() == [types.index(1) for types in theirs["token_type_ids"]]
    assert store.truncated.tolist() == [len(row) > max_tokens for row in hugging_face(texts, 10_000)["input_ids"]]


@given(texts=st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=1, max_size=5))
def test_siamese_pairs_are_two_single_texts(texts: list[tuple[str, ...]]) -> None:
    store = tokenize(texts, siamese=True)
    alone = tokenize([(text,) for pair in texts for text in pair])
    assert store.sequences_per_example == 2
    assert store.n_examples == len(texts)
    assert ids_of(store) == ids_of(alone)
    assert store.truncated.tolist() == alone.truncated.reshape(-1, 2).any(axis=1).tolist()


@given(texts=st.lists(st.tuples(SURROGATES | ANY_TEXT), min_size=1, max_size=5))
def test_a_text_is_tokenised_alike_alone_and_among_others(texts: list[tuple[str, ...]]) -> None:
    together = ids_of(tokenize(texts))
    assert together == [ids_of(tokenize([text]))[0] for text in texts]


HOSTILE = [
    "",
    " ",
    "\0",
    "\ud800",
    "👩‍👩‍👧",
    "\u202eabc",
    "e" + "\u0301" * 10_000,
    "a" * 100_000,
    "a " * 50_000,
    "\n" * 100_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("other", [None, "", "good film"])
def test_hostile_texts_harm_no_neighbour(text: str, other: str | None) -> None:
    pad = () if other is None else (other,)
    usual = ("good film", *pad)
    store = tokenize([usual, (text, *pad), usual])
    assert store.sequence(0).tolist() == store.sequence(2).tolist() == tokenize([usual]).ids.tolist()
    clean = text.replace("\ud800", "\ufffd")
    assert store.sequence(1).tolist() == hugging_face([(clean, *pad)], MAX_TOKENS)["input_ids"][0]


def test_an_empty_second_text_keeps_its_separator() -> None:
    (ids,) = ids_of(tokenize([("good", "")]))
    separator = TOKENIZER.token_to_id("[SEP]")
    assert ids[-2:] == [separator, separator]
    assert tokenize([("good", "")]).segment_starts.tolist() == [3]


@given(
    words=st.lists(st.sampled_from(["good", "films", "what?", "x" * 120, "\t", "\n\n", "é"]), min_size=1, max_size=6),
    second=st.sampled_from(["", "why", "the film is good " * 4]),
)
@settings(max_examples=30)
def test_long_texts_cut_early_give_the_same_tokens(words: list[str], second: str) -> None:
    text = " ".join(words * (3000 // len(words)))
    for texts in ([(text,)], [(text, second)], [(second, text)]):
        store = tokenize(texts)
        assert ids_of(store) == hugging_face(texts, MAX_TOKENS)["input_ids"]


@given(
    words=st.lists(
        st.sampled_from(["日本", "語", "films", "e\u0301", "👩", "。", "\0", "x" * 300]), min_size=1, max_size=6
    ),
    start=st.sampled_from(["", "the ", "日 "]),
)
@settings(max_examples=30)
def test_long_texts_without_spaces_cut_early_give_the_same_tokens(words: list[str], start: str) -> None:
    text = start + "".join(words * (2000 // len(words)))
    for texts in ([(text,)], [(text, "why")]):
        assert ids_of(tokenize(texts)) == hugging_face(texts, MAX_TOKENS)["input_ids"]


@pytest.mark.parametrize("words", ["the film is good ", "日本語の"])
def test_a_million_characters_are_quick(words: str) -> None:
    text = words * (1_000_000 // len(words))
    began = time.perf_counter()
    store = tokenize([(text, text), ("good", text), (text, "")], 128)
    assert time.perf_counter() - began < 1.0
    assert store.lengths().tolist() == [128] * 3
    assert store.truncated.all()


@given(st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=6), st.booleans(), st.data())
def test_some_examples_taken_are_those_examples_tokenised_alone(
    texts: list[tuple[str, str]], siamese: bool, data: st.DataObject
) -> None:
    examples = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=8))
    taken = tokenize([*texts], siamese=siamese).take(np.array(examples, dtype=np.int64))
    alone = tokenize([texts[example] for example in examples], siamese=siamese)
    assert ids_of(taken) == ids_of(alone)
    assert taken.segment_starts.tolist() == alone.segment_starts.tolist()
    assert taken.truncated.tolist() == alone.truncated.tolist()
    assert taken.offsets.tolist() == alone.offsets.tolist()
    assert taken.sequences_per_example == alone.sequences_per_example


def test_the_callers_tokenizer_stays_as_it_is() -> None:
    before = TOKENIZER.to_str()
    tokenize([("a", "b")])
    assert TOKENIZER.to_str() == before


def test_many_batches_and_none() -> None:
    texts = [(f"{'good ' * (i % 7)}film",) for i in range(BATCH_EXAMPLES + 3)]
    store = tokenize(texts)
    assert store.n_examples == len(texts)
    assert store.lengths().tolist() == [3 + i % 7 for i in range(len(texts))]
    empty = tokenize([])
    assert (empty.n_examples, len(empty.ids), empty.offsets.tolist()) == (0, 0, [0])


@pytest.mark.parametrize(("size", "dtype"), [(2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_ids_are_as_small_as_the_vocabulary_allows(size: int, dtype: type) -> None:
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    store = tokenize_texts(tokenizer, [(f"w{size - 1} w1",)], max_tokens=8, siamese=False)
    assert store.ids.dtype == dtype
    assert store.ids.tolist() == [size - 1, 1]


def test_tokenizers_without_type_ids_have_no_second_segment() -> None:
    tokenizer = Tokenizer.from_str(TOKENIZER.to_str())
    tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    store = tokenize_texts(tokenizer, [("good", "film")], max_tokens=12, siamese=False)
    assert store.segment_starts.tolist() == store.lengths().tolist() == [6]
