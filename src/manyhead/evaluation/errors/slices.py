"""Scores of groups of examples that differ in something one can read off their texts, beside those of all others.

Slices overlap, and many of them are looked at: one whose interval lies apart from the rest is a hint.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyhead.evaluation.errors.words import is_negation, is_question, numbers_in, overlap, words_of
from manyhead.evaluation.scored import Scored
from manyhead.evaluation.statistics.intervals import score_interval, score_of

FEWEST = 20
"""Examples of a slice whose score is told."""
RESAMPLES = 1000
"""Of a slice's interval: there are many slices, and nobody reads their third digit."""

_QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")


@dataclass(frozen=True)
class Membership:
    """Which examples (E,) a slice holds, by what definition."""

    name: str
    definition: str
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Slice:
    """The score of a slice.

    ``value`` is the task's ``metric`` on its ``n`` examples, ``low`` to ``high`` its interval at 95 %
    (`score_interval`), ``rest`` the metric on the ``rest_n`` others. None where they are fewer than `FEWEST`, which
    ``note`` then says.
    """

    name: str
    definition: str
    metric: str
    n: int
    value: float | None
    low: float | None
    high: float | None
    rest_n: int
    rest: float | None
    note: str | None


def slices_of(scored: Scored, *, resamples: int = RESAMPLES) -> tuple[Slice, ...]:
    """The scores of all slices of `memberships`."""
    return tuple(_slice(scored, each, resamples) for each in memberships(scored))


def memberships(scored: Scored) -> list[Membership]:
    """The slices that hold some of the examples, but not all. Raises ValueError where there are no texts."""
    if not len(scored.texts):
        raise ValueError("there are no texts")
    words = [[words_of(text) for text in texts] for texts in scored.texts]
    lengths = np.array([sum(map(len, each)) for each in words])
    found = _quarters("length", "words", lengths)
    if len(scored.texts[0]) == 2:
        shares = np.array([overlap(*each) for each in words])
        found += _quarters("word overlap", "of the different words stand in both texts (Jaccard)", shares, percent=True)
    negations = np.array([[is_negation(each) for each in texts] for texts in words])
    numbers = [
        [numbers_in(text, own) for text, own in zip(texts, each, strict=True)]
        for texts, each in zip(scored.texts, words, strict=True)
    ]
    questions = [
        [is_question(text, own) for text, own in zip(texts, each, strict=True)]
        for texts, each in zip(scored.texts, words, strict=True)
    ]
    found += _quarters(
        "rare words",
        "of the different words stand in no other of these examples (training texts are not looked at)",
        _rare_shares(words),
        percent=True,
    )
    masks = {
        ("negation", "an English negation: not, never, no, n't ..."): negations.max(1),
        ("negation in one text", "an English negation in one of the two texts only"): negations.max(1)
        & ~negations.min(1),
        ("numbers", "a number, in digits or as an English word from two on"): np.array([any(each) for each in numbers]),
        ("different numbers", "two texts with different numbers"): np.array([len({*each}) > 1 for each in numbers]),
        ("questions", "a question mark, or an English question word first"): np.array(questions).max(1),
    }
    found += [Membership(name, definition, mask) for (name, definition), mask in masks.items()]
    if scored.truncated is not None:
        found.append(Membership("truncated", "longer than the model reads: its end was cut", scored.truncated))
    return [each for each in found if 0 < each.mask.sum() < scored.n]


def _quarters(name: str, what: str, values: NDArray[Any], *, percent: bool = False) -> list[Membership]:
    """Quarters by ``values`` (E,): equal ones stay together, so quarters may differ in size, or be none."""
    cuts = np.quantile(values, (0.25, 0.5, 0.75))
    place = np.searchsorted(cuts, values, side="left")
    found: list[Membership] = []
    for number, quarter in enumerate(_QUARTERS):
        mask = place == number
        if mask.any():
            low, high = values[mask].min(), values[mask].max()
            bounds = f"{low:.0%} to {high:.0%}" if percent else f"{low} to {high}"
            found.append(Membership(f"{name}: {quarter}", f"{bounds} {what}", mask))
    return found


def _rare_shares(words: list[list[list[str]]]) -> NDArray[np.float64]:
    """(E,) the share of each example's words that no other example has; 0 where it has no words."""
    own = [{word for text in texts for word in text} for texts in words]
    counts = Counter(word for each in own for word in each)
    return np.array([sum(counts[word] == 1 for word in each) / max(len(each), 1) for each in own])


def _slice(scored: Scored, member: Membership, resamples: int) -> Slice:
    inside, outside = scored.take(member.mask), scored.take(~member.mask)
    value = low = high = None
    if inside.n >= FEWEST:
        interval = score_interval(inside, resamples=resamples)
        value, low, high = interval.value, interval.low, interval.high
    small = [what for what, n in (("the slice", inside.n), ("the rest", outside.n)) if n < FEWEST]
    return Slice(
        member.name,
        member.definition,
        scored.metric,
        inside.n,
        value,
        low,
        high,
        outside.n,
        score_of(outside) if outside.n >= FEWEST else None,
        f"{' and '.join(small)}: fewer than {FEWEST} examples, too few for a score" if small else None,
    )
