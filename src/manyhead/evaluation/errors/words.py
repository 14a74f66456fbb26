"""Words of texts, and the English words by which slices know a negation, a number or a question."""

import re
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_DIGITS = re.compile(r"(?<!\w)\d+(?:[.,]\d+)*")


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case: letters and digits, with apostrophes inside."""
    return [word.lower().replace("\u2019", "'") for word in _WORD.findall(text)]


NEGATIONS = frozenset(
    words_of("no not never none nobody nothing nowhere neither nor cannot without hardly scarcely barely")
)
NUMBER_WORDS = frozenset(
    words_of(
        "zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion"
    )
)
QUESTION_WORDS = frozenset(
    words_of(
        "who whom whose what which when where why how is are am was were do does did can could will would shall should "
        "may might has have had"
    )
)


def is_negation(words: Iterable[str]) -> bool:
    """Whether an English negation is among the words, such as "not", "never" or "isn't"."""
    return any(word in NEGATIONS or word.endswith("n't") for word in words)


def numbers_in(text: str, words: Iterable[str]) -> frozenset[str]:
    """The numbers of a text, as it writes them: in digits, or as an English word from "two" on."""
    return frozenset(_DIGITS.findall(text)) | (NUMBER_WORDS & frozenset(words))


def is_question(text: str, words: Sequence[str]) -> bool:
    """Whether a text has a question mark, or begins with an English word that questions begin with."""
    return any(mark in text for mark in "?\uff1f\u061f\u037e") or (bool(words) and words[0] in QUESTION_WORDS)


def overlap(first: Iterable[str], second: Iterable[str]) -> float:
    """Share of the different words of two texts that both have (Jaccard); 1 where neither has any."""
    one, other = frozenset(first), frozenset(second)
    return len(one & other) / len(one | other) if one | other else 1.0
