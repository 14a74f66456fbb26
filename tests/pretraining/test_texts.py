"""Joined pairs come apart into the texts that they were made of, whatever the tokenizer puts around them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_data import WORDS
from tokenizers import Tokenizer, processors

from manyhead.data.tokens import tokenize_texts
from manyhead.errors import UsageError
from manyhead.pretraining.texts import SpecialTokens, pack_texts, texts_of
from tiny import tiny_tokenizer

CLS, SEP = ("[CLS]", 2), ("[SEP]", 3)


def with_processor(processor: Any) -> Tokenizer:
    tokenizer = tiny_tokenizer()
    tokenizer.post_processor = processor
    return tokenizer


def template(single: str, pair: str) -> Tokenizer:
    return with_processor(processors.TemplateProcessing(single=single, pair=pair, special_tokens=[CLS, SEP]))


TYPED = {
    "bert": tiny_tokenizer(),
    "separator in the second segment": template("[CLS] $A [SEP]", "[CLS] $A [SEP]:1 $B:1 [SEP]:1"),
    "last token in the first segment": template("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:0"),
    "xlnet": template("$A [SEP] [CLS]", "$A [SEP] $B:1 [SEP]:1 [CLS]:1"),
    "nothing between": template("$A", "$A $B:1"),
}
UNTYPED = {
    "roberta": with_processor(processors.RobertaProcessing(SEP, CLS, trim_offsets=False)),
    "modernbert": template("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:0 [SEP]:0"),
}
texts = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
odd_texts = st.lists(st.sampled_from([*WORDS, "[SEP]", "[CLS]", "\N{SNOWMAN}"]), max_size=6).map(" ".join)


def come_apart(tokenizer: Tokenizer, pairs: list[tuple[str, str]]) -> None:
    special = SpecialTokens.of(tokenizer)
    examples = np.arange(len(pairs))[::-1]
    joined = tokenize_texts(tokenizer, pairs, max_tokens=64, siamese=False)
    apart = tokenize_texts(tokenizer, pairs, max_tokens=64, siamese=True)
    found = texts_of(joined, examples, special, is_pair=True)
    expected = texts_of(apart, examples, special, is_pair=True)
    assert [[text.tolist() for text in pair] for pair in found] == [[t.tolist() for t in pair] for pair in expected]
    for example, pair in zip(examples, found, strict=True):
        for text, sequence in zip(pairs[example], pair, strict=True):
            assert sequence.tolist() == tokenizer.encode(text).ids
            assert special.is_empty(sequence) == (not text)


@pytest.mark.parametrize("name", TYPED)
@given(pairs=st.lists(st.tuples(odd_texts, odd_texts.filter(bool)), min_size=1, max_size=4))
def test_pairs_come_apart_by_their_segments(name: str, pairs: list[tuple[str, str]]) -> None:
    come_apart(TYPED[name], pairs)


@pytest.mark.parametrize("name", ["bert", "xlnet", *UNTYPED])
@given(pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_pairs_come_apart_by_their_separators(name: str, pairs: list[tuple[str, str]]) -> None:
    come_apart({**TYPED, **UNTYPED}[name], pairs)


def test_a_pair_that_was_cut_comes_apart() -> None:
    tokenizer = tiny_tokenizer()
    store = tokenize_texts(tokenizer, [("good film " * 20, "slow plot " * 20)], max_tokens=13, siamese=False)
    (pair,) = texts_of(store, np.array([0]), SpecialTokens.of(tokenizer), is_pair=True)
    long = [tokenizer.encode(text * 20).ids for text in ("good film ", "slow plot ")]
    assert [text.tolist() for text in pair] == [[*ids[:6], 3] for ids in long]


def test_a_pair_without_any_mark_is_refused() -> None:
    tokenizer = template("$A", "$A $B:0")
    store = tokenize_texts(tokenizer, [("good", "film")], max_tokens=9, siamese=False)
    with pytest.raises(UsageError, match="pairing: siamese"):
        texts_of(store, np.array([0]), SpecialTokens.of(tokenizer), is_pair=True)


def test_special_tokens_are_found() -> None:
    special = SpecialTokens.of(tiny_tokenizer())
    assert special.ids == {0, 1, 2, 3, 4}
    assert special.mask == 4
    plain = Tokenizer.from_str(tiny_tokenizer().to_str().replace("[MASK]", "[HIDE]"))
    assert SpecialTokens.of(plain).mask is None
    angles = Tokenizer.from_str(tiny_tokenizer().to_str().replace("[MASK]", "<mask>"))
    assert SpecialTokens.of(angles).mask == 4


def test_texts_are_packed_by_task_and_length() -> None:
    ids = [np.arange(1, 1 + size, dtype=np.uint16) for size in (5, 2, 4, 3)]
    batch = pack_texts({"one": [(ids[0], ids[1]), (ids[2], ids[3])], "two": [(ids[3],)]})
    assert batch.lengths == (2, 3, 4, 5, 3)
    sequences = batch.input_ids.split(list(batch.lengths))
    found = [[sequences[row].tolist() for row in rows] for part in batch.parts for rows in part.sequences.tolist()]
    expected = [[ids[0], ids[1]], [ids[2], ids[3]], [ids[3]]]
    assert found == [[each.tolist() for each in example] for example in expected]
    assert not bool(batch.segment_ids.any())
